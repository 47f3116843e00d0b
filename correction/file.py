"""correction.safetensors: a plan and its correction in one small file. docs/correction-format.md is the specification.

The writer is deterministic: the same inputs give the same bytes. The reader trusts nothing: it bounds every size before
it allocates, and refuses with a `FormatError` whose `name` is the same in every reader of the format.
"""

from __future__ import annotations

import json
import os
import re
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from correction.errors import FormatError, TableError, UsageError
from correction.header import MAX_HEADER, Entry, parse_header
from correction.plan import COLUMNS, MAX_HISTORY, MAX_STEPS, PREDICTION_TYPES, FloatArray, SamplingPlan
from correction.tables import MAX_CHANNELS, NAMES, Correction

FORMAT = "timestep-correction"
VERSION = "1.1"
MAX_FILE = 64 * 2**20  # bytes
RESERVED = ("format", "format_version", "prediction_type", "scheduler", "scheduler_config")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})", re.ASCII)
_PLAN = {f"plan.{name}": ("steps",) for name in COLUMNS} | {"plan.w": ("steps", "history"), "plan.init_sigma": ("one",)}
_TENSORS: dict[str, tuple[str, ...]] = dict(sorted((_PLAN | {name: ("steps", "channels") for name in NAMES}).items()))
_LIMITS = {
    "one": (1, "wrong-shape"),
    "steps": (MAX_STEPS, "too-many-steps"),
    "history": (MAX_HISTORY, "too-much-history"),
    "channels": (MAX_CHANNELS, "too-many-channels"),
}


@dataclass(frozen=True, eq=False)
class CorrectionFile:
    """What a correction file holds; `metadata` has every metadata entry but those that the plan carries."""

    plan: SamplingPlan
    correction: Correction
    metadata: Mapping[str, str]

    @property
    def artifact_sha256(self) -> str:
        """sha256 (hex) of the artifact that the correction was solved for."""
        return self.metadata["artifact_sha256"]


def write_correction(
    path: str | os.PathLike[str], plan: SamplingPlan, correction: Correction, metadata: Mapping[str, Any]
) -> None:
    """Writes the file: first to a temporary file beside it, flushed to disk, then renamed over `path`.

    Args:
        metadata: must hold "artifact_sha256" (64 lower-case hex digits); usually also "model_kind", "sampler",
            "guidance_scale" and the provenance "method", "samples", "seed", "stream". Strings are stored as they are,
            other values as JSON.

    Raises:
        UsageError: plan and correction do not fit, or the metadata is refused.
    """
    data = encode_correction(plan, correction, metadata)
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=target.name, suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def encode_correction(plan: SamplingPlan, correction: Correction, metadata: Mapping[str, Any]) -> bytes:
    """The bytes of the file; arguments and errors as in `write_correction`."""
    if correction.steps != plan.steps:
        raise UsageError(f"the plan has {plan.steps} steps but the correction {correction.steps}.")
    taken = sorted(set(metadata) & set(RESERVED))
    if taken:
        raise UsageError(f"metadata must not hold {taken}: the plan and the format set them.")
    if not isinstance(metadata.get("artifact_sha256"), str) or not _SHA256.fullmatch(metadata["artifact_sha256"]):
        raise UsageError(
            f"metadata['artifact_sha256'] must be 64 lower-case hex digits, got {metadata.get('artifact_sha256')!r}."
        )
    texts = {key: value if isinstance(value, str) else _json(key, value) for key, value in metadata.items()}
    texts |= {
        "format": FORMAT,
        "format_version": VERSION,
        "prediction_type": plan.prediction_type,
        "scheduler": plan.scheduler,
        "scheduler_config": _json("scheduler_config", dict(plan.scheduler_config)),
    }
    header: dict[str, Any] = {"__metadata__": texts}
    chunks: list[bytes] = []
    offset = 0
    for name in _TENSORS:
        values = _value(name, plan, correction)
        chunks.append(values.astype("<f4").tobytes())
        header[name] = {"data_offsets": [offset, offset + len(chunks[-1])], "dtype": "F32", "shape": list(values.shape)}
        offset += len(chunks[-1])
    try:
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"metadata must be valid Unicode: {error}.") from error
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + b"".join(chunks)
    if len(text) > MAX_HEADER or len(data) > MAX_FILE:
        raise UsageError(f"the file would have {len(text)} header bytes and {len(data)} in all; too large.")
    return data


def read_correction(source: str | os.PathLike[str] | bytes, artifact_sha256: str | None = None) -> CorrectionFile:
    """Reads and checks a file, or the bytes of one.

    Args:
        artifact_sha256: the artifact about to be run; a file solved for another one is refused. None skips this check.

    Raises:
        FormatError: the file is refused; `name` says why.
        OSError: the path cannot be read.
    """
    data = source if isinstance(source, bytes) else _read_bounded(source)
    if len(data) > MAX_FILE:
        raise FormatError("too-large", f"a correction file has at most {MAX_FILE} bytes, got {len(data)}.")
    metadata, entries, payload = parse_header(data, _check_version)
    _check_entries(entries)
    _check_coverage(entries, len(payload))
    config = _check_metadata(metadata, artifact_sha256)
    arrays = {name: _array(payload, entry) for name, entry in entries.items()}
    columns = {name: arrays[f"plan.{name}"] for name in (*COLUMNS, "w")}
    try:
        plan = SamplingPlan(
            **columns,
            init_sigma=float(arrays["plan.init_sigma"][0]),
            prediction_type=metadata["prediction_type"],
            scheduler=metadata["scheduler"],
            scheduler_config=config,
        )
        correction = Correction(**{name: arrays[name] for name in NAMES})
    except TableError as error:
        raise FormatError(error.name, str(error)) from error
    rest = {key: value for key, value in metadata.items() if key not in RESERVED}
    return CorrectionFile(plan, correction, rest)


def _read_bounded(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_FILE + 1)


def _check_version(metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise FormatError("other-format", f"metadata 'format' must be {FORMAT!r}, got {metadata.get('format')!r}.")
    version = metadata.get("format_version", "")
    match = _VERSION.fullmatch(version)
    if not match:
        raise FormatError("bad-version", f"metadata 'format_version' must look like {VERSION!r}, got {version!r}.")
    if match[1] != VERSION.split(".")[0]:
        raise FormatError("unknown-major-version", f"this reader knows version {VERSION}, the file has {version}.")


def _check_entries(entries: Mapping[str, Entry]) -> None:
    """Names, dtypes and shapes."""
    for name in sorted(entries.keys() - _TENSORS.keys()):
        raise FormatError("unknown-tensor", f"{name!r} is not a tensor of this format.")
    for name in _TENSORS:
        if name not in entries:
            raise FormatError("missing-tensor", f"{name!r} is missing.")
    for name in _TENSORS:
        if entries[name].dtype != "F32":
            raise FormatError("wrong-dtype", f"{name!r} must have dtype F32, got {entries[name].dtype!r}.")
    sizes: dict[str, int] = {}
    for name, axes in _TENSORS.items():
        shape = entries[name].shape
        if len(shape) != len(axes):
            raise FormatError("wrong-shape", f"{name!r} must have {len(axes)} axes ({', '.join(axes)}), got {shape}.")
        for axis, size in zip(axes, shape, strict=True):
            limit, code = _LIMITS[axis]
            if size > limit:
                raise FormatError(code, f"{name!r} has {size} {axis}, at most {limit} are allowed.")
            if size < 1 or sizes.setdefault(axis, size) != size:
                raise FormatError(
                    "wrong-shape", f"{name!r} has {size} {axis}, expected {sizes.get(axis, 'at least 1')}."
                )


def _check_coverage(entries: Mapping[str, Entry], length: int) -> None:
    """The tensors tile the payload exactly: no hole, no overlap, nothing behind."""
    for name in _TENSORS:
        begin, end = entries[name].begin, entries[name].end
        if end - begin != 4 * int(np.prod(entries[name].shape, dtype=np.int64)):
            raise FormatError("wrong-size", f"{name!r} has offsets {begin}..{end}, not the size of its shape.")
    reached = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.begin):
        if entry.begin < reached:
            raise FormatError("overlapping-tensors", f"a tensor begins at {entry.begin}, before {reached}.")
        if entry.begin > reached:
            raise FormatError("gap", f"bytes {reached}..{entry.begin} belong to no tensor.")
        reached = entry.end
    if reached > length:
        raise FormatError("truncated", f"the tensors need {reached} bytes, {length} are there.")
    if reached < length:
        raise FormatError("trailing-bytes", f"{length - reached} bytes follow the last tensor.")


def _check_metadata(metadata: Mapping[str, str], artifact_sha256: str | None) -> dict[str, Any]:
    for key in ("artifact_sha256", *RESERVED[2:]):
        if key not in metadata:
            raise FormatError("missing-metadata", f"metadata {key!r} is missing.")
    digest = metadata["artifact_sha256"]
    if not _SHA256.fullmatch(digest):
        raise FormatError("bad-metadata", f"artifact_sha256 must be 64 lower-case hex digits, got {digest!r}.")
    if metadata["prediction_type"] not in PREDICTION_TYPES:
        raise FormatError(
            "bad-metadata", f"prediction_type must be one of {PREDICTION_TYPES}, got {metadata['prediction_type']!r}."
        )
    if artifact_sha256 is not None and digest != artifact_sha256.lower():
        raise FormatError(
            "other-artifact", f"solved for artifact {digest}, not for {artifact_sha256}; calibrate this artifact."
        )
    return _config(metadata["scheduler_config"])


def _config(text: str) -> dict[str, Any]:
    """The scheduler's configuration. No sampler depends on it, so text that is no JSON object is kept, not refused."""
    try:
        config = json.loads(text)
        json.dumps(config, allow_nan=False).encode()
    except (ValueError, RecursionError):
        config = None
    return config if isinstance(config, dict) else {"unparsed": text}


def _array(payload: bytes, entry: Entry) -> FloatArray:
    return np.frombuffer(payload[entry.begin : entry.end], "<f4").astype(np.float32).reshape(entry.shape)


def _value(name: str, plan: SamplingPlan, correction: Correction) -> FloatArray:
    if name == "plan.init_sigma":
        return np.array([plan.init_sigma], np.float32)
    return getattr(plan, name.removeprefix("plan.")) if name.startswith("plan.") else getattr(correction, name)


def _json(key: str, value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"metadata {key!r} must be a string or a JSON value: {error}.") from error
