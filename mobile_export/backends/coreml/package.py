"""Package: an MLModel on disk, clean and the same bytes for the same model."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "Manifest.json"
_DATA = "Data"


def save_package(model: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Save an MLModel as a package folder.

    metadata: author, license, version and description, and user-defined entries, whose keys have a dot
    (com.github.…).

    Files that the converter leaves beside the listed ones are removed, and the random identifiers of the
    manifest are replaced by ones that follow from the contents.
    """
    model.author, model.license = metadata["author"], metadata["license"]
    model.version, model.short_description = metadata["version"], metadata["description"]
    for key, value in metadata.items():
        if "." in key:
            model.user_defined_metadata[key] = value
    shutil.rmtree(path, ignore_errors=True)
    model.save(str(path))
    tidy_package(path)


def tidy_package(path: Path) -> None:
    """Remove unlisted files, give the program's maps one order, name the listed files by what they hold."""
    from coremltools.proto import Model_pb2

    for program in path.glob("Data/*/*.mlmodel"):
        specification = Model_pb2.Model()
        specification.ParseFromString(program.read_bytes())
        program.write_bytes(specification.SerializeToString(deterministic=True))
    manifest = json.loads((path / MANIFEST).read_text())
    names = {}
    for old, entry in manifest["itemInfoEntries"].items():
        item = path / _DATA / entry["path"]
        digest = hashlib.sha256(entry["path"].encode())
        for file in sorted(p for p in (item.rglob("*") if item.is_dir() else [item]) if p.is_file()):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        names[old] = str(uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest())).upper()
    manifest["itemInfoEntries"] = {names[old]: entry for old, entry in manifest["itemInfoEntries"].items()}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    for stray in path.iterdir():
        if stray.name not in (MANIFEST, _DATA):
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
    for file in path.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
