"""Manifest: what a bundle's manifest.json must hold before anything else of the bundle is read.

A bundle may come from anywhere: sizes are bounded here, before anything is allocated by them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from correction import CheckFailed

MANIFEST = "manifest.json"
FORMAT = "mobile-export-bundle"
FORMAT_VERSION = "2.0"
MAX_MANIFEST_BYTES = 2**20
MAX_FILES = 1024
MAX_SIDE = 4096  # of an image, and its channels

_CONTENT: Mapping[str, type] = {
    "name": str,
    "precision": str,
    "recipe": dict,
    "stored_bits": float,
    "refitted_layers": dict,
    "sampler": str,
    "steps": int,
    "guidance": float,
    "model.name": str,
    "model.source": str,
    "model.kind": str,
    "model.digest": str,
    "model.parameters": int,
    "model.classes": list,
    "image.channels": int,
    "image.height": int,
    "image.width": int,
    "calibration.method": str,
    "calibration.samples": int,
    "calibration.seed": int,
    "calibration.stream": str,
    "versions": dict,
}
_PART: Mapping[str, type] = {
    "unet": str,
    "correction": str,
    "golden": str,
    "kept_steps": list,
    "conversion_parity": dict,
    "conversion_parity.limits": dict,
    "description": dict,
    "description.total_bytes": int,
    "description.size_parts": dict,
    "description.operations": dict,
    "description.undelegated": dict,
    "description.notes": list,
    "ideal_bytes": int,
    "weight_bits_asked": int,
    "weight_bits_achieved": float,
    "float_layers": list,
}


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest at `path`. Raises CheckFailed naming the first thing that is not as it must be."""
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise CheckFailed(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes: not a manifest of ours")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckFailed(f"{path} is not readable JSON ({error}); export the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckFailed(f"{path} is not the manifest of a bundle: its format is not {FORMAT!r}")
    version = str(manifest.get("format_version"))
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise CheckFailed(f"{path} has format version {version}, this program reads {FORMAT_VERSION}")
    files, parts = manifest.get("files"), manifest.get("parts")
    if not isinstance(files, dict) or not isinstance(parts, dict) or not 0 < len(files) <= MAX_FILES or not parts:
        raise CheckFailed(f"{path}: files and parts must be objects, with 1 to {MAX_FILES} files and a part")
    _require(path, manifest, _CONTENT)
    for name, part in parts.items():
        _require(path, part, _PART, f"parts.{name}.")
        for key in ("unet", "correction", "golden"):
            if part[key] not in files and not (key == "unet" and artifact_files(files, part[key])):
                raise CheckFailed(f"{path}: parts.{name}.{key} is {part[key]!r}, which is not in the list of files")
        parity = part["conversion_parity"]
        limited = {key: parity[key] for key in parity["limits"] if parity.get(key) is not None}
        _require_numbers(path, f"parts.{name}.conversion_parity", limited)
        _require_numbers(path, f"parts.{name}.conversion_parity.limits", parity["limits"])
        _require_numbers(path, f"parts.{name}.description.size_parts", part["description"]["size_parts"])
    for key in ("channels", "height", "width"):
        if not 1 <= manifest["image"][key] <= MAX_SIDE:
            raise CheckFailed(f"{path}: image.{key} must be 1 to {MAX_SIDE}, got {manifest['image'][key]}")
    model = manifest["model"]
    null = model.get("null_label")
    if not all(isinstance(name, str) for name in model["classes"]) or not (null is None or type(null) is int):
        raise CheckFailed(f"{path}: model.classes must be names, and model.null_label a number or null")
    return manifest


def artifact_files(files: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The entries of an artifact: the file `name` itself, or the files below the folder `name` by their path in it."""
    if name in files:
        return {PurePosixPath(name).name: files[name]}
    return {path.removeprefix(f"{name}/"): entry for path, entry in files.items() if path.startswith(f"{name}/")}


def _require_numbers(path: Path, what: str, content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if type(value) not in (int, float):
            raise CheckFailed(f"{path}: {what}.{key} is {type(value).__name__}, expected a number")


def _require(path: Path, content: Any, wanted: Mapping[str, type], prefix: str = "") -> None:
    for name, kind in wanted.items():
        value = content
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        # JSON writes 1.0 and 1 alike; true is no number.
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            got = "is missing" if value is None else f"is {type(value).__name__}"
            raise CheckFailed(f"{path}: {prefix}{name} {got}, expected {kind.__name__}; export the bundle again")
