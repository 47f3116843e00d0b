"""Bundle: the directory that goes on the phone, with a manifest that names every file by size and sha256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from correction import CheckFailed, UsageError
from correction.file import CorrectionFile, read_correction
from mobile_export.manifest import FORMAT, FORMAT_VERSION, MANIFEST, read_manifest


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were checked against its manifest when it was opened.

    path: its folder; manifest: the parsed manifest (docs/bundle-format.md).
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read and verify: limits first, then sizes, then digests.

        Raises UsageError when `path` is no bundle, CheckFailed naming the file that is missing,
        changed, or outside of the folder.
        """
        if not path.is_dir():
            raise UsageError(f"no bundle at {str(path)!r}: it is not a folder")
        manifest_path = path / MANIFEST
        if not manifest_path.is_file():
            raise UsageError(f"{str(path)!r} is not a bundle: it has no {MANIFEST}; make one with mobile-export export")
        manifest = read_manifest(manifest_path)
        for name, entry in manifest["files"].items():
            try:
                _check_file(path, name, entry)
            except OSError as error:  # for example a name that is too long for the file system
                raise CheckFailed(f"{name[:100]!r} of the bundle cannot be read ({error.strerror})") from error
        return cls(path, manifest)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def backends(self) -> tuple[str, ...]:
        return tuple(self.manifest["parts"])

    def part(self, backend: str) -> Mapping[str, Any]:
        """The manifest's entry of one backend. Raises UsageError naming what the bundle has."""
        if backend not in self.manifest["parts"]:
            raise UsageError(f"{self.path} has no {backend} part; it has: {', '.join(self.backends)}")
        return self.manifest["parts"][backend]

    def artifact(self, backend: str) -> Path:
        return self.path / self.part(backend)["unet"]

    def correction_file(self, backend: str) -> CorrectionFile:
        """The plan and correction, checked to be solved for this very artifact."""
        part = self.part(backend)
        return read_correction(self.path / part["correction"], self.manifest["files"][part["unet"]]["sha256"])


def file_entry(path: Path) -> dict[str, Any]:
    """Manifest entry of a file: its size in bytes and sha256."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write manifest.json over everything that is in `folder`; the same content gives the same bytes."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    files = {name: file_entry(folder / name) for name in names if name != MANIFEST}
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, **content, "files": files}
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """A work folder beside `target` that becomes `target` when the block ends well.

    An error removes it; an interruption leaves it (hidden, without a manifest at its real name) so
    that the same command can go on. An earlier bundle at `target` is replaced only at the end.
    Raises UsageError when `target` exists and is not a bundle.
    """
    if target.exists() and not (target / MANIFEST).is_file():
        raise UsageError(f"{str(target)!r} exists and is not a bundle: choose another output or remove it")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {str(target.parent)!r} of the output does not exist")
    work = target.parent / f".{target.name}.partial"
    work.mkdir(exist_ok=True)
    try:
        yield work
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        raise
    old = target.parent / f".{target.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(work, target)
    shutil.rmtree(old, ignore_errors=True)


def _check_file(folder: Path, name: str, entry: Any) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts:
        raise CheckFailed(f"the manifest names {name!r}, which is outside of the bundle")
    path = folder / pure
    if path.is_symlink() or any((folder / p).is_symlink() for p in list(pure.parents)[:-1]):
        raise CheckFailed(f"{name} is a link: a bundle holds its files itself")
    if not path.is_file():
        raise CheckFailed(f"{name} is missing from the bundle: copy or export it again")
    if not isinstance(entry, dict) or path.stat().st_size != entry.get("bytes"):
        size = path.stat().st_size
        raise CheckFailed(f"{name} has {size} bytes, the manifest says otherwise: copy or export it again")
    if file_sha256(path) != entry.get("sha256"):
        raise CheckFailed(f"{name} was changed since the bundle was made (sha256 differs): copy or export it again")
