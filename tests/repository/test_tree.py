"""What may be in the repository: files that a reader can take in, and nothing of the machine they were written on."""

from __future__ import annotations

import re
from pathlib import Path

LINES = 400
BYTES = 12_000_000
MACHINE_PATH = re.compile(rb"(?<![\w.~-])/(?:work|root|home|Users)/\w")
BINARY = {".png", ".jpg", ".webp", ".ico", ".safetensors", ".pte", ".npz", ".bin", ".zip", ".jar", ".mlpackage", ".ttf"}


def test_no_python_file_is_too_long(root: Path) -> None:
    files = [path for package in ("correction", "mobile_export") for path in (root / package).rglob("*.py")]
    assert len(files) > 20
    lengths = {str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > LINES} == {}


def test_no_tracked_file_is_too_big(tracked: list[Path], root: Path) -> None:
    sizes = {str(path.relative_to(root)): path.stat().st_size for path in tracked}
    assert {name: size for name, size in sizes.items() if size > BYTES} == {}


def test_no_path_of_one_machine(tracked: list[Path], root: Path) -> None:
    found = [
        f"{path.relative_to(root)}: {match.group().decode()}"
        for path in tracked
        if path.suffix not in BINARY
        for match in MACHINE_PATH.finditer(path.read_bytes())
    ]
    assert found == []
