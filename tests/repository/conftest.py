"""The files that git tracks, and the pages among them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[Path]:
    """Absolute paths of the tracked files that exist; the test skips outside a git checkout."""
    if not (root / ".git").exists():
        pytest.skip(f"{root} is not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in listed.split("\0") if name and (root / name).is_file()]


@pytest.fixture(scope="session")
def pages(tracked: list[Path]) -> dict[Path, str]:
    """Text of every Markdown page."""
    return {path: path.read_text(encoding="utf-8") for path in tracked if path.suffix == ".md"}
