"""Hostile correction files, each one change away from a valid one, with the name of the refusal in every reader."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from toys import small_plan

from correction import Correction, encode_correction
from correction.file import COLUMNS, MAX_FILE
from correction.header import MAX_HEADER
from correction.tables import NAMES

SHA = hashlib.sha256(b"artifact").hexdigest()
METADATA = {
    "artifact_sha256": SHA,
    "model_kind": "unet2d",
    "sampler": "ddim",
    "guidance_scale": 1.5,
    "method": "tac",
    "samples": 128,
    "seed": 0,
    "stream": "calibration",
}
PLAN = small_plan(3)
GRID = np.arange(6, dtype=np.float32).reshape(3, 2)
CORRECTION = Correction(1 + GRID / 8, GRID / 16, 1 - GRID / 16, -GRID / 8)
VALID = encode_correction(PLAN, CORRECTION, METADATA)


@dataclass(frozen=True)
class Hostile:
    """data: the file; error: the name of its refusal; artifact_sha256: of the artifact that the caller is to run."""

    data: bytes
    error: str
    artifact_sha256: str | None = None


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, payload) of a file."""
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def packed(header: Any, payload: bytes = b"") -> bytes:
    """A file with this header, bytes or JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """VALID with its header changed in place."""
    header, payload = split(VALID)
    change(header)
    return packed(header, payload)


def with_texts(old: bytes, new: bytes) -> bytes:
    """VALID with the first `old` of its header replaced."""
    header, payload = split(VALID)
    text = json.dumps(header).encode()
    assert old in text
    return packed(text.replace(old, new, 1), payload)


def with_values(name: str, *places: tuple[int, float], data: bytes = VALID) -> bytes:
    """`data` with elements of a tensor set: (index, value)."""
    header, payload = split(data)
    for index, value in places:
        begin = header[name]["data_offsets"][0] + 4 * index
        payload = payload[:begin] + struct.pack("<f", value) + payload[begin + 4 :]
    return packed(header, payload)


def drop(header: dict[str, Any], name: str) -> None:
    del header[name]


def put(header: dict[str, Any], *path_and_value: Any) -> None:
    """put(header, "plan.a", "shape", [3])"""
    *path, last, value = path_and_value
    for key in path:
        header = header[key]
    header[last] = value


def swap_first_two(header: dict[str, Any]) -> None:
    """Lets the second tensor begin one element early, where the first has not ended."""
    begin, end = header["input_gain"]["data_offsets"]
    header["input_gain"]["data_offsets"] = [begin - 4, end - 4]


def shift_rest(header: dict[str, Any]) -> None:
    """Lets every tensor but the first begin one element late."""
    for name in set(header) - {"__metadata__", "input_bias"}:
        header[name]["data_offsets"] = [offset + 4 for offset in header[name]["data_offsets"]]


def reshape(header: dict[str, Any], names: list[str], shape: list[int]) -> None:
    for name in names:
        header[name]["shape"] = shape


TABLES = list(NAMES)
STEP_TENSORS = [f"plan.{name}" for name in COLUMNS]
VERSION = ("__metadata__", "format_version")
NAN = float("nan")

# In the order of the checks.
HOSTILE = {
    "empty": Hostile(b"", "truncated"),
    "seven-bytes": Hostile(VALID[:7], "truncated"),
    "header-longer-than-the-file": Hostile(struct.pack("<Q", 1000) + b"{}", "truncated"),
    "header-of-2-to-the-64-minus-1": Hostile(b"\xff" * 8 + VALID[8:], "header-too-large"),
    "header-of-2-to-the-63": Hostile(b"\0" * 7 + b"\x80" + VALID[8:], "header-too-large"),
    "big-endian-length": Hostile(VALID[:8][::-1] + VALID[8:], "header-too-large"),
    "empty-header": Hostile(packed(b""), "not-json"),
    "header-is-not-utf8": Hostile(packed(b'{"\xff": 1}'), "not-utf8"),
    "surrogate-in-utf8": Hostile(packed(b'{"\xed\xa0\x80": 1}'), "not-utf8"),
    "overlong-utf8": Hostile(packed(b'{"\xc0\x80": 1}'), "not-utf8"),
    "beyond-unicode": Hostile(packed(b'{"\xf4\x90\x80\x80": 1}'), "not-utf8"),
    "not-utf8-behind-broken-json": Hostile(packed(b"{,}\xff"), "not-utf8"),
    "header-is-not-json": Hostile(packed(b"{,}"), "not-json"),
    "header-is-a-list": Hostile(packed(b"[]"), "not-json"),
    "leading-blank": Hostile(packed(b' {"a":1,"a":1}'), "not-json"),
    "byte-order-mark": Hostile(packed(b"\xef\xbb\xbf{}"), "not-json"),
    "nan-in-the-header": Hostile(packed(b'{"a": NaN}'), "not-json"),
    "infinity-in-the-header": Hostile(packed(b'{"a": -Infinity}'), "not-json"),
    "leading-zero": Hostile(packed(b'{"a": 01}'), "not-json"),
    "leading-plus": Hostile(packed(b'{"a": +1}'), "not-json"),
    "number-ends-in-a-point": Hostile(packed(b'{"a": 1.}'), "not-json"),
    "number-begins-with-a-point": Hostile(packed(b'{"a": .5}'), "not-json"),
    "exponent-without-digits": Hostile(packed(b'{"a": 1e}'), "not-json"),
    "trailing-comma": Hostile(packed(b'{"a": [1,]}'), "not-json"),
    "single-quotes": Hostile(packed(b"{'a': 1}"), "not-json"),
    "capital-true": Hostile(packed(b'{"a": True}'), "not-json"),
    "comment": Hostile(packed(b'{"a": 1 /* one */}'), "not-json"),
    "control-character-in-a-string": Hostile(packed(b'{"a": "\x01"}'), "not-json"),
    "line-break-in-a-string": Hostile(packed(b'{"a": "\n"}'), "not-json"),
    "unknown-escape": Hostile(packed(b'{"a": "\\x41"}'), "not-json"),
    "broken-escape": Hostile(packed(b'{"a": "\\u12g4"}'), "not-json"),
    "signed-escape": Hostile(packed(b'{"a": "\\u+123"}'), "not-json"),
    "lone-surrogate": Hostile(packed(b'{"\\ud800": 1}'), "not-json"),
    "lone-low-surrogate": Hostile(packed(b'{"a": "\\udc00\\ud800"}'), "not-json"),
    "lone-surrogate-under-a-duplicate-key": Hostile(packed(b'{"a":"\\ud800","a":1}'), "not-json"),
    "form-feed-between": Hostile(packed(b'{"a":\x0c1}'), "not-json"),
    "no-break-space-between": Hostile(packed(b'{"a":\xc2\xa01}'), "not-json"),
    "deep-header": Hostile(packed(b'{"a":' + b"[" * 3000), "not-json"),
    "nested-one-too-deep": Hostile(packed(b'{"a":[[[[]]]]}'), "not-json"),
    "brackets-do-not-match": Hostile(packed(b'{"a":[}]'), "not-json"),
    "two-values": Hostile(packed(b"{}{}"), "not-json"),
    "zero-behind-the-header": Hostile(packed(b"{}\0"), "not-json"),
    "duplicate-key": Hostile(packed(b'{"a":1,"a":1}'), "duplicate-key"),
    "duplicate-key-by-an-escape": Hostile(packed(b'{"a":1,"\\u0061":1}'), "duplicate-key"),
    "duplicate-key-then-broken": Hostile(packed(b'{"a":{"b":1,"b":1},'), "not-json"),
    "duplicate-metadata": Hostile(packed(b'{"__metadata__":{"format":"x","format":"x"}}'), "duplicate-key"),
    # Two ways to write é are two keys, brackets in strings do not nest, 1e400 is a number: what is missing is a format.
    "equivalent-keys-are-not-equal": Hostile(packed('{"é":1,"e\u0301":1}'.encode()), "other-format"),
    "brackets-in-a-string": Hostile(packed(b'{"a":"[[[[[[\\"[["}'), "other-format"),
    "large-number": Hostile(packed(b'{"a":1e400,"b":-0.5E-7,"c":"\\ud83d\\ude00\\/"}'), "other-format"),
    "metadata-is-a-list": Hostile(changed(lambda h: put(h, "__metadata__", [])), "bad-header"),
    "metadata-is-null": Hostile(changed(lambda h: put(h, "__metadata__", None)), "bad-header"),
    "metadata-of-numbers": Hostile(changed(lambda h: put(h, "__metadata__", "seed", 1)), "bad-header"),
    "no-metadata": Hostile(changed(lambda h: drop(h, "__metadata__")), "other-format"),
    "other-format": Hostile(changed(lambda h: put(h, "__metadata__", "format", "pt")), "other-format"),
    "no-version": Hostile(changed(lambda h: drop(h["__metadata__"], "format_version")), "bad-version"),
    "version-with-a-letter": Hostile(changed(lambda h: put(h, *VERSION, "1.x")), "bad-version"),
    "version-with-a-line-break": Hostile(changed(lambda h: put(h, *VERSION, "1.1\n")), "bad-version"),
    "version-with-a-leading-zero": Hostile(changed(lambda h: put(h, *VERSION, "01.0")), "bad-version"),
    "version-of-seven-digits": Hostile(changed(lambda h: put(h, *VERSION, "1.1000000")), "bad-version"),
    "version-in-other-digits": Hostile(changed(lambda h: put(h, *VERSION, "\u0661.0")), "bad-version"),
    "next-major-version": Hostile(changed(lambda h: put(h, *VERSION, "2.0")), "unknown-major-version"),
    "major-version-0": Hostile(changed(lambda h: put(h, *VERSION, "0.9")), "unknown-major-version"),
    "next-major-version-with-other-tensors": Hostile(
        changed(lambda h: put(h, *VERSION, "2.0") or put(h, "plan.a", 7)), "unknown-major-version"
    ),
    "tensor-is-a-number": Hostile(changed(lambda h: put(h, "plan.a", 7)), "bad-header"),
    "tensor-with-a-fourth-field": Hostile(changed(lambda h: put(h, "plan.a", "x", 7)), "bad-header"),
    "dtype-is-a-number": Hostile(changed(lambda h: put(h, "plan.a", "dtype", 32)), "bad-header"),
    "shape-minus-1": Hostile(changed(lambda h: put(h, "plan.a", "shape", [-1])), "bad-header"),
    "shape-minus-0": Hostile(with_texts(b"[3]", b"[-0]"), "bad-header"),
    "shape-with-a-fraction": Hostile(changed(lambda h: put(h, "plan.a", "shape", [3.0])), "bad-header"),
    "shape-with-an-exponent": Hostile(with_texts(b"[3]", b"[3e0]"), "bad-header"),
    "shape-true": Hostile(changed(lambda h: put(h, "plan.a", "shape", [True])), "bad-header"),
    "shape-of-2-to-the-64-plus-3": Hostile(with_texts(b"[3]", b"[18446744073709551619]"), "bad-header"),
    "shape-of-5000-digits": Hostile(with_texts(b"[3]", b"[" + b"9" * 5000 + b"]"), "bad-header"),
    "one-offset": Hostile(changed(lambda h: put(h, "plan.a", "data_offsets", [0])), "bad-header"),
    "offsets-backwards": Hostile(changed(lambda h: put(h, "plan.a", "data_offsets", [8, 4])), "bad-header"),
    "unknown-tensor": Hostile(changed(lambda h: put(h, "extra", dict(h["plan.a"]))), "unknown-tensor"),
    "unknown-tensor-in-place-of-another": Hostile(
        changed(lambda h: put(h, "extra", h.pop("plan.a"))), "unknown-tensor"
    ),
    "missing-tensor": Hostile(changed(lambda h: drop(h, "input_gain")), "missing-tensor"),
    "float64": Hostile(changed(lambda h: put(h, "plan.a", "dtype", "F64")), "wrong-dtype"),
    "gain-of-one-axis": Hostile(changed(lambda h: put(h, "output_gain", "shape", [6])), "wrong-shape"),
    "gains-of-fewer-steps": Hostile(changed(lambda h: reshape(h, TABLES, [2, 3])), "wrong-shape"),
    "no-steps": Hostile(changed(lambda h: reshape(h, TABLES, [0, 2]) or reshape(h, STEP_TENSORS, [0])), "wrong-shape"),
    "two-init-sigma": Hostile(changed(lambda h: put(h, "plan.init_sigma", "shape", [2])), "wrong-shape"),
    "too-many-steps": Hostile(changed(lambda h: reshape(h, TABLES, [4097, 2])), "too-many-steps"),
    "too-many-channels": Hostile(changed(lambda h: reshape(h, TABLES, [3, 4097])), "too-many-channels"),
    "exabytes": Hostile(changed(lambda h: reshape(h, TABLES, [10**14, 10**14])), "too-many-steps"),
    "too-much-history": Hostile(changed(lambda h: put(h, "plan.w", "shape", [3, 9])), "too-much-history"),
    "size-is-not-the-shape": Hostile(changed(lambda h: put(h, "plan.a", "data_offsets", [0, 8])), "wrong-size"),
    "overlap": Hostile(changed(swap_first_two), "overlapping-tensors"),
    "same-place-twice": Hostile(
        changed(lambda h: put(h, "plan.b", "data_offsets", h["plan.a"]["data_offsets"])), "overlapping-tensors"
    ),
    "hole": Hostile(changed(shift_rest), "gap"),
    "last-byte-missing": Hostile(VALID[:-1], "truncated"),
    "one-more-byte": Hostile(VALID + b"\0", "trailing-bytes"),
    "no-digest": Hostile(changed(lambda h: drop(h["__metadata__"], "artifact_sha256")), "missing-metadata"),
    "no-scheduler": Hostile(changed(lambda h: drop(h["__metadata__"], "scheduler")), "missing-metadata"),
    "no-config-and-a-short-digest": Hostile(
        changed(lambda h: put(h, "__metadata__", "artifact_sha256", "") or drop(h["__metadata__"], "scheduler_config")),
        "missing-metadata",
    ),
    "short-digest": Hostile(changed(lambda h: put(h, "__metadata__", "artifact_sha256", SHA[:63])), "bad-metadata"),
    "digest-in-capitals": Hostile(
        changed(lambda h: put(h, "__metadata__", "artifact_sha256", SHA.upper())), "bad-metadata"
    ),
    "prediction-type": Hostile(changed(lambda h: put(h, "__metadata__", "prediction_type", "x")), "bad-metadata"),
    "other-artifact": Hostile(VALID, "other-artifact", "0" * 64),
    "other-artifact-and-nan": Hostile(with_values("plan.a", (0, NAN)), "other-artifact", "0" * 64),
    "nan-in-the-plan": Hostile(with_values("plan.q", (2, NAN)), "not-finite", SHA.upper()),
    "infinity-in-the-plan": Hostile(with_values("plan.w", (1, float("-inf"))), "not-finite"),
    "infinite-init-sigma": Hostile(with_values("plan.init_sigma", (0, float("inf"))), "not-finite"),
    "timestep-above-the-one-before": Hostile(
        with_values("plan.timestep", (1, float(np.nextafter(PLAN.timestep[0], np.float32(1e9))))),
        "timesteps-not-decreasing",
    ),
    "timesteps-rise-below-0": Hostile(
        with_values("plan.timestep", (0, -3.0), (1, -2.0), (2, -1.0)), "timesteps-not-decreasing"
    ),
    "timestep-below-0": Hostile(with_values("plan.timestep", (2, -1.0)), "bad-plan"),
    "input-scale-0": Hostile(with_values("plan.input_scale", (1, 0.0)), "bad-plan"),
    "negative-clip": Hostile(with_values("plan.clip", (1, -1.0)), "bad-plan"),
    "negative-sigma": Hostile(with_values("plan.sigma", (0, -1.0)), "bad-plan"),
    "init-sigma-0": Hostile(with_values("plan.init_sigma", (0, 0.0)), "bad-plan"),
    "output-before-the-first": Hostile(with_values("plan.w", (1, 0.5)), "bad-plan"),
    "bad-plan-and-nan-in-a-table": Hostile(
        with_values("output_gain", (0, NAN), data=with_values("plan.sigma", (0, -1.0))), "bad-plan"
    ),
    "nan-in-a-table": Hostile(with_values("output_gain", (1, NAN)), "not-finite"),
    "infinite-bias-and-gain-0": Hostile(
        with_values("output_bias", (0, float("inf")), data=with_values("input_gain", (0, 0.0))), "not-finite"
    ),
    "gain-0": Hostile(with_values("input_gain", (0, 0.0)), "gain-out-of-bounds"),
    "negative-gain": Hostile(with_values("input_gain", (0, -1.0)), "gain-out-of-bounds"),
    "gain-just-above-10": Hostile(
        with_values("output_gain", (5, float(np.nextafter(np.float32(10), np.float32(11))))), "gain-out-of-bounds"
    ),
    "gain-just-below-a-tenth": Hostile(
        with_values("output_gain", (5, float(np.nextafter(np.float32(0.1), np.float32(0))))), "gain-out-of-bounds"
    ),
}

# Too big to commit: a little-endian length, then blanks. name -> (header length, bytes in all, error)
LARGE = {
    "header-one-byte-too-large": (MAX_HEADER + 1, 8 + MAX_HEADER + 1, "header-too-large"),
    "one-byte-too-large": (2, MAX_FILE + 1, "too-large"),
}
