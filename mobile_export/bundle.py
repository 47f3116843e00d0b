"""Bundle: the directory that goes on the phone, with a manifest that names every file by size and sha256.

An artifact is a file or a folder of files. Its digest, to which its correction is bound, follows from
the manifest alone (`artifact_digest`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from correction import CheckFailed, UsageError
from correction.file import CorrectionFile, read_correction
from mobile_export.backends import BACKENDS
from mobile_export.manifest import FORMAT, FORMAT_VERSION, MANIFEST, BundleError, artifact_files, read_manifest
from mobile_export.models.component import COMPONENTS, Signature

# A line break would make the lines of a folder's digest ambiguous.
NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
UNBOUND = "Manifest.json"  # at the root of an artifact folder: Core ML's list of the others, with random names


class NoBundle(UsageError):
    """There is no bundle where one was expected; `name` as in BundleError."""

    name = "no-manifest"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were checked against its manifest when it was opened.

    path: its folder; manifest: the parsed manifest (docs/bundle-format.md).
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read and verify: limits first, then paths and sizes, then digests.

        Raises NoBundle when `path` is none, BundleError naming the file that is missing, changed, or outside of the
        folder.
        """
        if not path.is_dir():
            raise NoBundle(f"no bundle at {str(path)!r}: it is not a folder")
        manifest_path = path / MANIFEST
        if manifest_path.is_symlink():
            raise BundleError("link", f"{manifest_path} is a link: a bundle holds its files itself")
        if not manifest_path.is_file():
            raise NoBundle(f"{str(path)!r} is not a bundle: it has no {MANIFEST}; make one with mobile-export export")
        manifest = read_manifest(manifest_path)
        files = dict(sorted(manifest["files"].items()))
        for name in files:
            _check_path(name)
        for check in (_check_size, _check_digest):
            for name, entry in files.items():
                try:
                    check(path, name, entry)
                except OSError as error:  # for example a name that is too long for the file system
                    message = f"{name[:100]!r} of the bundle cannot be read ({error.strerror})"
                    raise BundleError("missing-file", message) from error
        for part in manifest["parts"].values():
            for entry in part["components"].values():
                _check_artifact(path, entry["artifact"], files)
        return cls(path, manifest)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def targets(self) -> tuple[str, ...]:
        """The backends that the bundle has a part of, in the order of the registry; those that it lacks last."""
        known = [name for name in BACKENDS if name in self.manifest["parts"]]
        return (*known, *sorted(set(self.manifest["parts"]) - set(known)))

    def part(self, target: str) -> Mapping[str, Any]:
        """The manifest's entry of one target. Raises UsageError naming what the bundle has."""
        if target not in self.manifest["parts"]:
            raise UsageError(f"{self.path} has no {target} part; it has: {', '.join(self.targets)}")
        return self.manifest["parts"][target]

    def component(self, target: str, name: str = "unet") -> Mapping[str, Any]:
        """The manifest's entry of one component. Raises UsageError naming what the part has."""
        components = self.part(target)["components"]
        if name not in components:
            raise UsageError(f"{self.path} has no {name} for {target}; it has: {', '.join(components)}")
        return components[name]

    def components(self, target: str) -> tuple[str, ...]:
        """Names of the components of one part, the UNet first."""
        return tuple(name for name in COMPONENTS if name in self.part(target)["components"])

    def signature(self, target: str, name: str = "unet") -> Signature:
        """What the artifact of a component takes and gives."""
        return Signature.from_dict(self.component(target, name)["signature"])

    def artifact(self, target: str, name: str = "unet") -> Path:
        """The file or folder that the target's runtime loads."""
        return self.path / self.component(target, name)["artifact"]

    def artifact_bytes(self, target: str, name: str = "unet") -> int:
        """Size of the file, or of all files of the folder."""
        files = artifact_files(self.manifest["files"], self.component(target, name)["artifact"])
        return sum(entry["bytes"] for entry in files.values())

    def artifact_sha256(self, target: str, name: str = "unet") -> str:
        """`artifact_digest` of the target's artifact."""
        return artifact_digest(self.manifest["files"], self.component(target, name)["artifact"])

    def correction_file(self, target: str) -> CorrectionFile:
        """The plan and correction of the UNet, checked to be solved for this very artifact.

        Raises FormatError when the file is refused, BundleError when it is for samples of other channels.
        """
        file = read_correction(self.path / self.part(target)["correction"], self.artifact_sha256(target))
        channels = self.manifest["sample"]["channels"]
        if file.correction.channels != channels:
            message = f"the correction is for {file.correction.channels} channels, samples have {channels}"
            raise BundleError("wrong-channels", f"{message}: export the bundle again")
        return file


def artifact_digest(files: Mapping[str, Any], name: str) -> str:
    """Digest (hex) of the artifact `name` from the `files` of a manifest alone.

    A file's is its sha256. A folder's is the sha256 over the sorted lines "<sha256>  <path in the
    folder>\\n" of its files, but for a Manifest.json at its root. Raises CheckFailed where `files` has
    neither.
    """
    if name in files:
        return files[name]["sha256"]
    found = artifact_files(files, name)
    lines = sorted(f"{entry['sha256']}  {path}\n" for path, entry in found.items() if path != UNBOUND)
    if not lines:
        raise CheckFailed(f"the manifest lists no file of the artifact {name!r}: export the bundle again")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def path_digest(path: Path) -> str:
    """`artifact_digest` of a file or folder on disk."""
    entries = {path.name: file_entry(path)} if path.is_file() else file_entries(path, f"{path.name}/")
    return artifact_digest(entries, path.name)


def file_entries(folder: Path, prefix: str = "") -> dict[str, Any]:
    """Relative path, after `prefix` -> manifest entry of every file below `folder`."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {f"{prefix}{name}": file_entry(path) for name, path in sorted(found.items())}


def file_entry(path: Path) -> dict[str, Any]:
    """Manifest entry of a file: its size in bytes and sha256."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write manifest.json over all of `folder` that is not hidden; the same content gives the same bytes."""
    entries = file_entries(folder)
    files = {name: entry for name, entry in entries.items() if name != MANIFEST and not name.startswith(".")}
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


def _check_path(name: str) -> None:
    if NOT_IN_NAMES.search(name):
        message = f"the manifest names {name!r}, which has characters that no file name here may have"
        raise BundleError("bad-path", message)
    if "\\" in name or any(segment in ("", ".", "..") for segment in name.split("/")):
        raise BundleError("bad-path", f"the manifest names {name!r}, which is outside of the bundle or no plain path")


def _check_size(folder: Path, name: str, entry: Any) -> None:
    path = folder / name
    if path.is_symlink() or any((folder / p).is_symlink() for p in list(PurePosixPath(name).parents)[:-1]):
        raise BundleError("link", f"{name} is a link: a bundle holds its files itself")
    if not path.is_file():
        raise BundleError("missing-file", f"{name} is missing from the bundle: copy or export it again")
    size = path.stat().st_size
    if not isinstance(entry, dict) or type(entry.get("bytes")) is not int or size != entry["bytes"]:
        message = f"{name} has {size} bytes, the manifest says otherwise: copy or export it again"
        raise BundleError("wrong-size", message)


def _check_digest(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    if file_sha256(folder / name) != entry.get("sha256"):
        message = f"{name} was changed since the bundle was made (sha256 differs): copy or export it again"
        raise BundleError("changed-file", message)


def _check_artifact(folder: Path, name: str, files: Mapping[str, Any]) -> None:
    """A runtime may load whatever lies in an artifact folder, so that nothing else may lie there."""
    path = folder / name
    there = {f"{name}/{p.relative_to(path).as_posix()}" for p in path.rglob("*") if not p.is_dir() or p.is_symlink()}
    extra = sorted(there - set(files))
    if extra:
        message = f"{extra[0]} is not in the list of files: copy or export the bundle again"
        raise BundleError("extra-file", message)
