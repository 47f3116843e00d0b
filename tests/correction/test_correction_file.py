"""The correction file: round trips, and every hostile file refused by its name."""

import contextlib
import hashlib
import json
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load
from toys import small_plan

from correction import Correction, FormatError, UsageError, encode_correction, read_correction, write_correction
from correction.file import COLUMNS, MAX_FILE
from correction.header import MAX_HEADER
from correction.schedulers import make_plan
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


def some_correction(steps, channels, seed=0):
    random = np.random.default_rng(seed)
    gains = [random.uniform(0.5, 2, (steps, channels)) for _ in range(2)]
    biases = [random.uniform(-1, 1, (steps, channels)) for _ in range(2)]
    return Correction(gains[0], biases[0], gains[1], biases[1])


PLAN = small_plan(3)
VALID = encode_correction(PLAN, some_correction(3, 2), METADATA)


def split(data):
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def packed(header, payload):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def changed(change):
    """VALID with its header changed in place."""
    header, payload = split(VALID)
    return packed(change(header) or header, payload)


def with_values(name, index, value):
    header, payload = split(VALID)
    begin = header[name]["data_offsets"][0] + 4 * index
    return packed(header, payload[:begin] + struct.pack("<f", value) + payload[begin + 4 :])


def name_of(data, **options):
    with pytest.raises(FormatError) as caught:
        read_correction(data, **options)
    assert str(caught.value).startswith(caught.value.name + ": ")
    return caught.value.name


def test_what_is_written_is_read_back():
    read = read_correction(VALID, artifact_sha256=SHA)
    assert read.plan.digest() == PLAN.digest()
    assert read.correction.digest() == some_correction(3, 2).digest()
    assert read.artifact_sha256 == SHA
    assert read.metadata == {k: v if isinstance(v, str) else json.dumps(v) for k, v in METADATA.items()}
    assert encode_correction(read.plan, read.correction, read.metadata) == VALID


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 12),
    channels=st.integers(1, 5),
    history=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    extra=st.dictionaries(st.text('abcé_"\\\n', min_size=1), st.text() | st.integers() | st.booleans(), max_size=3),
)
def test_any_valid_contents_make_a_round_trip(steps, channels, history, seed, extra):
    plan, correction = (small_plan(steps, history), some_correction(steps, channels, seed))
    data = encode_correction(plan, correction, {**extra, "artifact_sha256": SHA})
    read = read_correction(data)
    assert (read.plan.digest(), read.correction.digest()) == (plan.digest(), correction.digest())
    assert encode_correction(read.plan, read.correction, read.metadata) == data


def test_the_same_inputs_give_the_same_bytes_whatever_the_order_of_metadata():
    backwards = dict(reversed(METADATA.items()))
    assert encode_correction(small_plan(3), some_correction(3, 2), backwards) == VALID


def test_the_safetensors_library_reads_it():
    arrays = load(VALID)
    assert set(arrays) == {f"plan.{name}" for name in (*COLUMNS, "w", "init_sigma")} | set(NAMES)
    for name in NAMES:
        assert np.array_equal(arrays[name], getattr(some_correction(3, 2), name))
    for name in (*COLUMNS, "w"):
        assert np.array_equal(arrays[f"plan.{name}"], getattr(PLAN, name))


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m"])
def test_fifty_steps_of_three_channels_fit_in_eight_kilobytes(sampler):
    plan = make_plan(sampler, {"beta_schedule": "linear"}, 50)
    assert len(encode_correction(plan, some_correction(50, 3), METADATA)) <= 8000


def test_written_by_rename_and_nothing_is_left_behind(tmp_path, monkeypatch):
    path = tmp_path / "correction.safetensors"
    write_correction(path, PLAN, some_correction(3, 2), METADATA)
    assert path.read_bytes() == VALID and os.listdir(tmp_path) == [path.name]
    assert read_correction(path).plan.digest() == PLAN.digest()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_correction(path, PLAN, some_correction(3, 2, seed=1), METADATA)
    assert path.read_bytes() == VALID and os.listdir(tmp_path) == [path.name]


def drop(header, name):
    del header[name]


def put(header, *path_and_value):
    *path, last, value = path_and_value
    for key in path:
        header = header[key]
    header[last] = value


def swap_first_two(header):
    """Lets the second tensor begin one element early, where the first has not ended."""
    begin, end = header["input_gain"]["data_offsets"]
    header["input_gain"]["data_offsets"] = [begin - 4, end - 4]


def shift_rest(header):
    """Lets every tensor but the first begin one element late."""
    for name in set(header) - {"__metadata__", "input_bias"}:
        header[name]["data_offsets"] = [offset + 4 for offset in header[name]["data_offsets"]]


def reshape(header, names, shape):
    for name in names:
        header[name]["shape"] = shape


TABLES = list(NAMES)
STEP_TENSORS = [f"plan.{name}" for name in COLUMNS]
HEADER, PAYLOAD = split(VALID)
VERSION = ("__metadata__", "format_version")
HOSTILE = {
    "empty": (b"", "truncated"),
    "seven bytes": (VALID[:7], "truncated"),
    "header longer than the file": (struct.pack("<Q", 1000) + b"{}", "truncated"),
    "header of 2^64-1": (b"\xff" * 8 + VALID[8:], "header-too-large"),
    "header one byte too large": (struct.pack("<Q", MAX_HEADER + 1) + b" " * (MAX_HEADER + 1), "header-too-large"),
    "big-endian length": (VALID[:8][::-1] + VALID[8:], "header-too-large"),
    "empty header": (packed(b"", b""), "not-json"),
    "header is not UTF-8": (packed(b'{"\xff": 1}', b""), "not-utf8"),
    "header is not JSON": (packed(b"{,}", b""), "not-json"),
    "header is a list": (packed(b"[]", b""), "not-json"),
    "leading blank": (packed(b" {}", b""), "not-json"),
    "byte order mark": (packed(b"\xef\xbb\xbf{}", b""), "not-json"),
    "NaN in the header": (packed(b'{"a": NaN}', b""), "not-json"),
    "lone surrogate": (packed(b'{"\\ud800": 1}', b""), "not-json"),
    "deep header": (packed(b'{"a":' + b"[" * 100_000, b""), "not-json"),
    "nested one too deep": (packed(b'{"a":[[[[]]]]}', b""), "not-json"),
    "two values": (packed(b"{}{}", b""), "not-json"),
    "duplicate key": (packed(b'{"a":1,"a":1}', b""), "duplicate-key"),
    "duplicate key, then broken": (packed(b'{"a":{"b":1,"b":1},', b""), "not-json"),
    "duplicate metadata": (packed(b'{"__metadata__":{"format":"x","format":"x"}}', b""), "duplicate-key"),
    "metadata is a list": (changed(lambda h: put(h, "__metadata__", [])), "bad-header"),
    "metadata of numbers": (changed(lambda h: put(h, "__metadata__", "seed", 1)), "bad-header"),
    "no metadata": (changed(lambda h: drop(h, "__metadata__")), "other-format"),
    "other format": (changed(lambda h: put(h, "__metadata__", "format", "pt")), "other-format"),
    "no version": (changed(lambda h: drop(h["__metadata__"], "format_version")), "bad-version"),
    "version with a letter": (changed(lambda h: put(h, *VERSION, "1.x")), "bad-version"),
    "version in other digits": (changed(lambda h: put(h, *VERSION, "\u0661.0")), "bad-version"),
    "next major version": (changed(lambda h: put(h, *VERSION, "2.0")), "unknown-major-version"),
    "major version 0": (changed(lambda h: put(h, *VERSION, "0.9")), "unknown-major-version"),
    "next major version with other tensors": (
        changed(lambda h: put(h, *VERSION, "2.0") or put(h, "plan.a", 7)),
        "unknown-major-version",
    ),
    "tensor is a number": (changed(lambda h: put(h, "plan.a", 7)), "bad-header"),
    "tensor with a fourth field": (changed(lambda h: put(h, "plan.a", "x", 7)), "bad-header"),
    "shape -1": (changed(lambda h: put(h, "plan.a", "shape", [-1])), "bad-header"),
    "shape -0": (packed(json.dumps(HEADER).encode().replace(b"[3]", b"[-0]", 1), PAYLOAD), "bad-header"),
    "shape 3.0": (changed(lambda h: put(h, "plan.a", "shape", [3.0])), "bad-header"),
    "shape true": (changed(lambda h: put(h, "plan.a", "shape", [True])), "bad-header"),
    "shape of 5000 digits": (
        packed(json.dumps(HEADER).encode().replace(b"[3]", b"[" + b"9" * 5000 + b"]", 1), PAYLOAD),
        "bad-header",
    ),
    "one offset": (changed(lambda h: put(h, "plan.a", "data_offsets", [0])), "bad-header"),
    "offsets backwards": (changed(lambda h: put(h, "plan.a", "data_offsets", [8, 4])), "bad-header"),
    "unknown tensor": (changed(lambda h: put(h, "extra", dict(h["plan.a"]))), "unknown-tensor"),
    "missing tensor": (changed(lambda h: drop(h, "input_gain")), "missing-tensor"),
    "float64": (changed(lambda h: put(h, "plan.a", "dtype", "F64")), "wrong-dtype"),
    "gain of one axis": (changed(lambda h: put(h, "output_gain", "shape", [6])), "wrong-shape"),
    "gains of fewer steps": (changed(lambda h: reshape(h, TABLES, [2, 3])), "wrong-shape"),
    "no steps": (changed(lambda h: reshape(h, TABLES, [0, 2]) or reshape(h, STEP_TENSORS, [0])), "wrong-shape"),
    "two init_sigma": (changed(lambda h: put(h, "plan.init_sigma", "shape", [2])), "wrong-shape"),
    "too many steps": (changed(lambda h: reshape(h, TABLES, [4097, 2])), "too-many-steps"),
    "too many channels": (changed(lambda h: reshape(h, TABLES, [3, 4097])), "too-many-channels"),
    "exabytes": (changed(lambda h: reshape(h, TABLES, [10**14, 10**14])), "too-many-steps"),
    "too much history": (changed(lambda h: put(h, "plan.w", "shape", [3, 9])), "too-much-history"),
    "size is not the shape's": (changed(lambda h: put(h, "plan.a", "data_offsets", [0, 8])), "wrong-size"),
    "overlap": (changed(swap_first_two), "overlapping-tensors"),
    "hole": (changed(shift_rest), "gap"),
    "last byte missing": (VALID[:-1], "truncated"),
    "one more byte": (VALID + b"\0", "trailing-bytes"),
    "no digest": (changed(lambda h: drop(h["__metadata__"], "artifact_sha256")), "missing-metadata"),
    "no scheduler": (changed(lambda h: drop(h["__metadata__"], "scheduler")), "missing-metadata"),
    "short digest": (changed(lambda h: put(h, "__metadata__", "artifact_sha256", SHA[:63])), "bad-metadata"),
    "digest in capitals": (changed(lambda h: put(h, "__metadata__", "artifact_sha256", SHA.upper())), "bad-metadata"),
    "prediction type": (changed(lambda h: put(h, "__metadata__", "prediction_type", "x")), "bad-metadata"),
    "NaN": (with_values("output_gain", 1, float("nan")), "not-finite"),
    "infinity": (with_values("plan.w", 1, float("-inf")), "not-finite"),
    "infinite init_sigma": (with_values("plan.init_sigma", 0, float("inf")), "not-finite"),
    "timestep above the one before": (
        with_values("plan.timestep", 1, float(np.nextafter(PLAN.timestep[0], np.float32(1e9)))),
        "timesteps-not-decreasing",
    ),
    "timestep below 0": (with_values("plan.timestep", 2, -1.0), "bad-plan"),
    "negative sigma": (with_values("plan.sigma", 0, -1.0), "bad-plan"),
    "output before the first": (with_values("plan.w", 1, 0.5), "bad-plan"),
    "gain 0": (with_values("input_gain", 0, 0.0), "gain-out-of-bounds"),
    "gain 10.1": (with_values("output_gain", 5, 10.1), "gain-out-of-bounds"),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_hostile_files_are_refused_by_name(case):
    data, name = HOSTILE[case]
    assert name_of(data) == name


def test_the_specification_lists_exactly_the_names_that_readers_give():
    root = Path(__file__).parents[2]
    table = (root / "docs" / "correction-format.md").read_text().split("## Order of checks")[1].split("## The loop")[0]
    listed: set[str] = set()
    for line in table.splitlines():
        if line.startswith("| `"):
            listed |= set(re.findall(r"`([a-z0-9-]+)`", line.split("|")[1]))
    tested = {name for _, name in HOSTILE.values()} | {"other-artifact", "too-large"}
    assert listed == tested


def test_another_artifact_is_refused():
    assert name_of(VALID, artifact_sha256="0" * 64) == "other-artifact"
    read_correction(VALID, artifact_sha256=SHA.upper())


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(MAX_FILE + 1)
    assert name_of(path) == "too-large"


def test_every_truncation_is_called_truncated():
    for length in range(len(VALID)):
        assert name_of(VALID[:length]) == "truncated"


def test_every_single_bit_flip_is_refused_by_type_or_read_as_valid():
    refused = 0
    for position in range(8 * len(VALID)):
        data = bytearray(VALID)
        data[position // 8] ^= 1 << position % 8
        try:
            read = read_correction(bytes(data))
        except FormatError:
            refused += 1
        else:
            assert np.isfinite(read.plan.w).all() and (np.diff(read.plan.timestep) <= 0).all()
            assert (np.abs(read.correction.output_gain) <= 10).all()
    assert refused > len(VALID)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: packed(b"{" + b, b"")))
def test_arbitrary_bytes_are_a_typed_error(data):
    assert name_of(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(HEADER)), st.sampled_from(["shape", "dtype", "data_offsets", "scheduler_config"]), JSON)
def test_any_json_in_any_place_is_a_typed_error_or_valid(name, key, value):
    with contextlib.suppress(FormatError):
        read_correction(changed(lambda h: put(h, name, key, value)))
    for text in (json.dumps(value), "[" * 50_000, "1e999", '{"a": NaN}'):
        config = read_correction(changed(lambda h, t=text: put(h, "__metadata__", "scheduler_config", t)))
        assert isinstance(config.plan.scheduler_config, dict)


def test_a_timestep_twice_is_read_in_every_minor_version():
    for version in ("1.0", "1.1"):
        data = with_values("plan.timestep", 1, float(PLAN.timestep[0]))
        data = data.replace(b'"format_version":"1.1"', f'"format_version":"{version}"'.encode())
        plan = read_correction(data).plan
        assert plan.timestep[0] == plan.timestep[1] > plan.timestep[2]


def test_a_newer_minor_version_and_unknown_metadata_are_accepted():
    data = changed(lambda h: put(h, *VERSION, "1.7") or put(h, "__metadata__", "future", "x"))
    assert read_correction(data).metadata["future"] == "x"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "artifact_sha256"),
        ({"artifact_sha256": SHA.upper()}, "lower-case"),
        ({"artifact_sha256": SHA, "format": "x"}, "format"),
        ({"artifact_sha256": SHA, "note": {1, 2}}, "'note'"),
        ({"artifact_sha256": SHA, "note": "\ud800"}, "Unicode"),
        ({"artifact_sha256": SHA, "note": "x" * MAX_HEADER}, "too large"),
    ],
)
def test_metadata_that_cannot_be_written_is_a_usage_error(metadata, message):
    with pytest.raises(UsageError, match=message):
        encode_correction(PLAN, some_correction(3, 2), metadata)


def test_plan_and_correction_must_fit():
    with pytest.raises(UsageError, match="3 steps but the correction 4"):
        encode_correction(PLAN, some_correction(4, 2), METADATA)
