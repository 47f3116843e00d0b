"""The correction file: round trips, arbitrary bytes. Hostile files that all languages share are in tests/golden."""

import contextlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hostile_files import (
    CORRECTION,
    HOSTILE,
    LARGE,
    METADATA,
    PLAN,
    SHA,
    VALID,
    VERSION,
    changed,
    packed,
    put,
    split,
    with_values,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load
from toys import small_plan

from correction import Correction, FormatError, UsageError, encode_correction, read_correction, write_correction
from correction.file import COLUMNS, MAX_FILE
from correction.header import MAX_HEADER
from correction.schedulers import make_plan
from correction.tables import NAMES


def some_correction(steps, channels, seed=0):
    random = np.random.default_rng(seed)
    gains = [random.uniform(0.5, 2, (steps, channels)) for _ in range(2)]
    biases = [random.uniform(-1, 1, (steps, channels)) for _ in range(2)]
    return Correction(gains[0], biases[0], gains[1], biases[1])


def name_of(data, **options):
    with pytest.raises(FormatError) as caught:
        read_correction(data, **options)
    assert str(caught.value).startswith(caught.value.name + ": ")
    return caught.value.name


def test_what_is_written_is_read_back():
    read = read_correction(VALID, artifact_sha256=SHA)
    assert read.plan.digest() == PLAN.digest()
    assert read.correction.digest() == CORRECTION.digest()
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
    assert encode_correction(small_plan(3), CORRECTION, backwards) == VALID


def test_the_safetensors_library_reads_it():
    arrays = load(VALID)
    assert set(arrays) == {f"plan.{name}" for name in (*COLUMNS, "w", "init_sigma")} | set(NAMES)
    for name in NAMES:
        assert np.array_equal(arrays[name], getattr(CORRECTION, name))
    for name in (*COLUMNS, "w"):
        assert np.array_equal(arrays[f"plan.{name}"], getattr(PLAN, name))


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m"])
def test_fifty_steps_of_three_channels_fit_in_eight_kilobytes(sampler):
    plan = make_plan(sampler, {"beta_schedule": "linear"}, 50)
    assert len(encode_correction(plan, some_correction(50, 3), METADATA)) <= 8000


def test_written_by_rename_and_nothing_is_left_behind(tmp_path, monkeypatch):
    path = tmp_path / "correction.safetensors"
    write_correction(path, PLAN, CORRECTION, METADATA)
    assert path.read_bytes() == VALID and os.listdir(tmp_path) == [path.name]
    assert read_correction(path).plan.digest() == PLAN.digest()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_correction(path, PLAN, some_correction(3, 2, seed=1), METADATA)
    assert path.read_bytes() == VALID and os.listdir(tmp_path) == [path.name]


def test_the_specification_lists_exactly_the_names_that_readers_give():
    root = Path(__file__).parents[2]
    table = (root / "docs" / "correction-format.md").read_text().split("## Order of checks")[1].split("## The loop")[0]
    listed: set[str] = set()
    for line in table.splitlines():
        if line.startswith("| `"):
            listed |= set(re.findall(r"`([a-z0-9-]+)`", line.split("|")[1]))
    assert listed == {hostile.error for hostile in HOSTILE.values()} | {error for _, _, error in LARGE.values()}


def test_the_artifact_it_was_solved_for_may_be_named_in_capitals():
    assert read_correction(VALID, artifact_sha256=SHA.upper()).artifact_sha256 == SHA


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
@given(
    st.sampled_from(sorted(split(VALID)[0])),
    st.sampled_from(["shape", "dtype", "data_offsets", "scheduler_config"]),
    JSON,
)
def test_any_json_in_any_place_is_a_typed_error_or_valid(name, key, value):
    with contextlib.suppress(FormatError):
        read_correction(changed(lambda h: put(h, name, key, value)))
    for text in (json.dumps(value), "[" * 50_000, "1e999", '{"a": NaN}'):
        config = read_correction(changed(lambda h, t=text: put(h, "__metadata__", "scheduler_config", t)))
        assert isinstance(config.plan.scheduler_config, dict)


def test_a_timestep_twice_is_read_in_every_minor_version():
    for version in ("1.0", "1.1"):
        data = with_values("plan.timestep", (1, float(PLAN.timestep[0])))
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
