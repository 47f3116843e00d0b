"""Manifest: what a bundle's manifest.json must hold before anything else of the bundle is read.

A bundle may come from anywhere: sizes are bounded here, before anything is allocated by them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from correction import CheckFailed, UsageError
from mobile_export.models.component import COMPONENTS, Signature

MANIFEST = "manifest.json"
FORMAT = "mobile-export-bundle"
FORMAT_VERSION = "3.0"
MAX_MANIFEST_BYTES = 2**20
MAX_FILES = 1024
MAX_SIDE = 4096  # of an image, and its channels

_CONTENT: Mapping[str, type] = {
    "name": str,
    "precision": str,
    "sampler": str,
    "steps": int,
    "guidance": float,
    "model.name": str,
    "model.source": str,
    "model.kind": str,
    "model.pipeline": str,
    "model.scheduler": str,
    "model.scheduler_config": dict,
    "model.digest": str,
    "model.parameters": int,
    "model.classes": list,
    "sample.channels": int,
    "sample.height": int,
    "sample.width": int,
    "image.channels": int,
    "image.height": int,
    "image.width": int,
    "calibration.method": str,
    "calibration.samples": int,
    "calibration.seed": int,
    "calibration.stream": str,
    "versions": dict,
}
_PART: Mapping[str, type] = {"components": dict, "correction": str, "golden": str, "kept_steps": list}
_COMPONENT: Mapping[str, type] = {
    "artifact": str,
    "kind": str,
    "parameters": int,
    "precision": str,
    "recipe": dict,
    "stored_bits": float,
    "refitted_layers": dict,
    "ideal_bytes": int,
    "weight_bits_asked": int,
    "weight_bits_achieved": float,
    "float_layers": list,
    "signature": dict,
    "signature.inputs": list,
    "signature.output": dict,
    "conversion_parity": dict,
    "conversion_parity.limits": dict,
    "description": dict,
    "description.total_bytes": int,
    "description.size_parts": dict,
    "description.operations": dict,
    "description.undelegated": dict,
    "description.notes": list,
}
_TEXT: Mapping[str, type] = {
    "max_length": int,
    "width": int,
    "vocabulary": int,
    "tokenizer": list,
    "negative_prompt": str,
    "subjects": list,
}
_LATENTS: Mapping[str, type] = {
    "kind": str,
    "channels": int,
    "image_channels": int,
    "factor": int,
    "scaling_factor": float,
    "shift_factor": float,
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
    for key, content in (("text", _TEXT), ("latents", _LATENTS)):
        if manifest.get(key) is not None:
            _require(path, manifest[key], content, f"{key}.")
    for name, part in parts.items():
        _require(path, part, _PART, f"parts.{name}.")
        if "unet" not in part["components"]:
            raise CheckFailed(f"{path}: parts.{name}.components has no unet")
        for component, entry in part["components"].items():
            _require_component(path, f"parts.{name}.components.{component}", component, entry, files)
        for key in ("correction", "golden"):
            if part[key] not in files:
                raise CheckFailed(f"{path}: parts.{name}.{key} is {part[key]!r}, which is not in the list of files")
    for what in ("sample", "image"):
        for key in ("channels", "height", "width"):
            if not 1 <= manifest[what][key] <= MAX_SIDE:
                raise CheckFailed(f"{path}: {what}.{key} must be 1 to {MAX_SIDE}, got {manifest[what][key]}")
    text = manifest.get("text")
    named = [manifest.get("constants")] + ([] if text is None else [*text["tokenizer"], text.get("prompts")])
    for file in filter(None, named):
        if file not in files:
            raise CheckFailed(f"{path}: text or constants are {file!r}, which is not in the list of files")
    model = manifest["model"]
    null = model.get("null_label")
    if not all(isinstance(name, str) for name in model["classes"]) or not (null is None or type(null) is int):
        raise CheckFailed(f"{path}: model.classes must be names, and model.null_label a number or null")
    return manifest


def _require_component(path: Path, where: str, name: str, entry: Any, files: Mapping[str, Any]) -> None:
    if name not in COMPONENTS:
        raise CheckFailed(f"{path}: {where} is none of {', '.join(COMPONENTS)}")
    _require(path, entry, _COMPONENT, f"{where}.")
    if not artifact_files(files, entry["artifact"]):
        raise CheckFailed(f"{path}: {where}.artifact is {entry['artifact']!r}, which is not in the list of files")
    parity = entry["conversion_parity"]
    limited = {key: parity[key] for key in parity["limits"] if parity.get(key) is not None}
    _require_numbers(path, f"{where}.conversion_parity", limited)
    _require_numbers(path, f"{where}.conversion_parity.limits", parity["limits"])
    _require_numbers(path, f"{where}.description.size_parts", entry["description"]["size_parts"])
    try:
        Signature.from_dict(entry["signature"])
    except (KeyError, TypeError, UsageError) as error:
        raise CheckFailed(f"{path}: {where}.signature is none ({error}); export the bundle again") from error


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
