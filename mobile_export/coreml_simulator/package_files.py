"""PackageFiles: what lies in the folder of an .mlpackage, and what its manifest says of it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError

MANIFEST = "Manifest.json"
DATA = "Data/"  # what the paths of the manifest are relative to
MAX_MANIFEST = 2**20  # bytes
MAX_FILES = 1000  # and folders
MAX_DEPTH = 8  # of folders


@dataclass(frozen=True)
class PackageFiles:
    """Paths are relative to the package, with slashes.

    sizes: bytes of every file. model: path of the program. listed: the files that the manifest lists, by themselves
    or by the folder that they are in.
    """

    root: Path
    sizes: Mapping[str, int]
    model: str
    listed: frozenset[str]

    def digest(self) -> str:
        """sha256 over the sorted lines "<sha256 of a file>  <its path>\\n", as hexadecimal digits.

        The manifest is left out, since its ids are random.
        """
        lines = []
        for name in self.sizes:
            if name != MANIFEST:
                with (self.root / name).open("rb") as file:
                    lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
        return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def read_package_files(root: Path) -> PackageFiles:
    """List the folder `root` and read its manifest.

    Raises:
        PackageError: `root` is no folder, holds a link or another thing that is neither file nor folder, or its
            manifest is missing, malformed, or names what is not there.
        UnsupportedError: a manifest of another major version.
    """
    if not root.is_dir():
        raise PackageError(f"a Core ML package is a folder, {root} is none")
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    _list(root, "", sizes, folders)
    if sizes.get(MANIFEST, MAX_MANIFEST + 1) > MAX_MANIFEST:
        raise PackageError(f"{root.name} must have a {MANIFEST} of at most {MAX_MANIFEST} bytes")
    manifest = _parse((root / MANIFEST).read_bytes())
    model, paths = _items(manifest, sizes.keys() | folders)
    if model not in sizes:
        raise PackageError(f"{MANIFEST}: the model must be a file, {model} is a folder")
    listed = frozenset(name for name in sizes if any(name == path or name.startswith(f"{path}/") for path in paths))
    return PackageFiles(root, dict(sorted(sizes.items())), model, listed)


def _list(folder: Path, prefix: str, sizes: dict[str, int], folders: set[str]) -> None:
    """Add what is below `folder` to `sizes` and `folders`. No file is opened, no link followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if not name.isprintable():
                raise PackageError(f"file names must be printable, got {name!r}")
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and name.count("/") < MAX_DEPTH:
                folders.add(name)
                _list(Path(entry.path), f"{name}/", sizes, folders)
            elif stat.S_ISREG(status.st_mode):
                sizes[name] = status.st_size
            else:
                raise PackageError(f"{name} must be a file, or a folder at most {MAX_DEPTH} deep; a link is neither")
            if len(sizes) + len(folders) > MAX_FILES:
                raise PackageError(f"a package may have {MAX_FILES} files and folders, this one has more")


def _parse(data: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError(f"a key stands twice among {[key for key, _ in pairs]}")
        return dict(pairs)

    try:
        manifest = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{MANIFEST} is not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise PackageError(f"{MANIFEST} must be an object, got {type(manifest).__name__}")
    version = manifest.get("fileFormatVersion")
    if not isinstance(version, str) or version.partition(".")[0] != "1":
        raise UnsupportedError(f"{MANIFEST} is of version {version!r}, only 1.* is known")
    return manifest


def _items(manifest: dict[str, Any], present: Set[str]) -> tuple[str, set[str]]:
    """The path of the model, and the paths of all items."""
    root, entries = manifest.get("rootModelIdentifier"), manifest.get("itemInfoEntries")
    if not isinstance(root, str) or not isinstance(entries, dict) or root not in entries:
        raise PackageError(f"{MANIFEST} must list the model {root!r} among its itemInfoEntries")
    paths = {identifier: _item_path(entry, present) for identifier, entry in entries.items()}
    return paths[root], set(paths.values())


def _item_path(entry: Any, present: Set[str]) -> str:
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str) or any(part in ("", ".", "..") for part in path.split("/")):
        raise PackageError(f"{MANIFEST}: an item needs a path inside of {DATA}, got {path!r}")
    path = DATA + path
    if path not in present:
        raise PackageError(f"{MANIFEST} lists {path!r}, which is not there")
    return path
