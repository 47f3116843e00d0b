"""Manifest: what a bundle's manifest.json must hold before anything else of the bundle is read.

A bundle may come from anywhere: sizes are bounded here, before anything is allocated by them. The apps make the same
checks in the same order and give the same names (docs/bundle-format.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from correction import CheckFailed, FormatError, UsageError
from correction.plan import MAX_STEPS
from correction.strict_json import decode_utf8, parse_json
from mobile_export.models.component import COMPONENTS, MAX_SIZE, Signature

MANIFEST = "manifest.json"
FORMAT = "mobile-export-bundle"
FORMAT_VERSION = "3.1"
MAX_MANIFEST_BYTES = 2**20
MAX_FILES = 1024
MAX_SIDE = 4096  # of an image, and its channels
MAX_DEPTH = 32  # of brackets
MAX_DIGITS = 40  # of a whole number

_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})", re.ASCII)
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


class BundleError(CheckFailed):
    """A bundle was refused. `name` is a stable error code, the same in every reader (docs/bundle-format.md)."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest at `path`. Raises BundleError naming the first thing that is not as it must be."""
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(
            "manifest-too-large", f"{path} is larger than {MAX_MANIFEST_BYTES} bytes: not a manifest of ours"
        )
    try:
        manifest = parse_json(decode_utf8(path.read_bytes()), MAX_DEPTH, _whole)
    except FormatError as error:
        raise BundleError(error.name, f"{path} is not readable JSON ({error}); export the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError("other-format", f"{path} is not the manifest of a bundle: its format is not {FORMAT!r}")
    version = manifest.get("format_version")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise BundleError("bad-version", f"{path} has format version {version}, this program reads {FORMAT_VERSION}")
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise BundleError(
            "unknown-major-version", f"{path} has format version {version}, this program reads {FORMAT_VERSION}"
        )
    files, parts = manifest.get("files"), manifest.get("parts")
    if not isinstance(files, dict) or not isinstance(parts, dict) or not files or not parts:
        raise BundleError("bad-manifest", f"{path}: files and parts must be objects with at least one entry")
    if len(files) > MAX_FILES:
        raise BundleError("too-many-files", f"{path}: a bundle has at most {MAX_FILES} files, got {len(files)}")
    _check_content(path, manifest)
    _check_ranges(path, manifest)
    _check_references(path, manifest)
    return manifest


def artifact_files(files: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The entries of an artifact: the file `name` itself, or the files below the folder `name` by their path in it."""
    if name in files:
        return {PurePosixPath(name).name: files[name]}
    return {path.removeprefix(f"{name}/"): entry for path, entry in files.items() if path.startswith(f"{name}/")}


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number has more than {MAX_DIGITS} digits")
    return int(text)


def _check_content(path: Path, manifest: Mapping[str, Any]) -> None:
    """Every key is there with its type."""
    _require(path, manifest, _CONTENT)
    for key, content in (("text", _TEXT), ("latents", _LATENTS)):
        if manifest.get(key) is not None:
            _require(path, manifest[key], content, f"{key}.")
    model, text = manifest["model"], manifest.get("text") or {}
    null = model.get("null_label")
    if not _all(str, model["classes"]) or not (null is None or _is(int, null)):
        raise BundleError("bad-manifest", f"{path}: model.classes must be names, and model.null_label a number or null")
    files = [file for file in (manifest.get("constants"), text.get("prompts")) if file is not None]
    if not _all(str, [*files, *text.get("tokenizer", ()), *text.get("subjects", ())]):
        raise BundleError("bad-manifest", f"{path}: constants and text must hold names of files and of subjects")
    for name, part in manifest["parts"].items():
        _require(path, part, _PART, f"parts.{name}.")
        if not _all(bool, part["kept_steps"]):
            raise BundleError("bad-manifest", f"{path}: parts.{name}.kept_steps must be true and false")
        if "unet" not in part["components"]:
            raise BundleError("bad-manifest", f"{path}: parts.{name}.components has no unet")
        for component, entry in part["components"].items():
            _check_component(path, f"parts.{name}.components.{component}", component, entry)


def _check_component(path: Path, where: str, name: str, entry: Any) -> None:
    if name not in COMPONENTS:
        raise BundleError("bad-manifest", f"{path}: {where} is none of {', '.join(COMPONENTS)}")
    _require(path, entry, _COMPONENT, f"{where}.")
    parity = entry["conversion_parity"]
    limited = {key: parity[key] for key in parity["limits"] if parity.get(key) is not None}
    _require_numbers(path, f"{where}.conversion_parity", limited)
    _require_numbers(path, f"{where}.conversion_parity.limits", parity["limits"])
    _require_numbers(path, f"{where}.description.size_parts", entry["description"]["size_parts"])
    try:
        for port in (*entry["signature"]["inputs"], entry["signature"]["output"]):
            if not isinstance(port["name"], str) or not isinstance(port["shape"], list):
                raise TypeError(f"{port} has no name and shape")
        Signature.from_dict(entry["signature"])
    except (KeyError, TypeError, UsageError) as error:
        message = f"{path}: {where}.signature is none ({error}); export the bundle again"
        raise BundleError("bad-manifest", message) from error


def _check_ranges(path: Path, manifest: Mapping[str, Any]) -> None:
    for what, names, limit in (
        ("sample", ("channels", "height", "width"), MAX_SIDE),
        ("image", ("channels", "height", "width"), MAX_SIDE),
        ("latents", ("channels", "image_channels", "factor"), MAX_SIZE),
        ("text", ("max_length", "width", "vocabulary"), MAX_SIZE),
    ):
        content = manifest.get(what) or {}
        for name in names if content else ():
            if not 1 <= content[name] <= limit:
                raise BundleError("out-of-range", f"{path}: {what}.{name} must be 1 to {limit}, got {content[name]}")
    if not 1 <= manifest["steps"] <= MAX_STEPS:
        raise BundleError("out-of-range", f"{path}: steps must be 1 to {MAX_STEPS}, got {manifest['steps']}")
    latents = manifest.get("latents")
    if latents is not None and not latents["scaling_factor"] > 0:
        raise BundleError(
            "out-of-range", f"{path}: latents.scaling_factor must be > 0, got {latents['scaling_factor']}"
        )


def _check_references(path: Path, manifest: Mapping[str, Any]) -> None:
    """What is named as a file is in the list of files."""
    files = manifest["files"]
    for what, name in _references(manifest):
        if name not in files and not (what.endswith(".artifact") and artifact_files(files, name)):
            raise BundleError("unlisted-file", f"{path}: {what} is {name!r}, which is not in the list of files")


def _references(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, part in manifest["parts"].items():
        for component, entry in part["components"].items():
            yield f"parts.{name}.components.{component}.artifact", entry["artifact"]
        for key in ("correction", "golden"):
            yield f"parts.{name}.{key}", part[key]
    text = manifest.get("text") or {"tokenizer": ()}
    for file in (manifest.get("constants"), *text["tokenizer"], text.get("prompts")):
        if file is not None:
            yield "text or constants", file


def _require_numbers(path: Path, what: str, content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if not _is(float, value):
            raise BundleError("bad-manifest", f"{path}: {what}.{key} is {type(value).__name__}, expected a number")


def _require(path: Path, content: Any, wanted: Mapping[str, type], prefix: str = "") -> None:
    for name, kind in wanted.items():
        value = content
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not _is(kind, value):
            got = "is missing" if value is None else f"is {type(value).__name__}"
            message = f"{path}: {prefix}{name} {got}, expected {kind.__name__}; export the bundle again"
            raise BundleError("bad-manifest", message)


def _is(kind: type, value: Any) -> bool:
    """JSON writes 1.0 and 1 alike, so that a whole number is a float too; true is no number."""
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    return type(value) is kind


def _all(kind: type, values: Any) -> bool:
    return all(_is(kind, value) for value in values)
