"""Arbitrary damage: a package is refused by a SimulatorError, or read; in little time and memory either way."""

import json
import os
import tracemalloc
from datetime import timedelta

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sample_packages import MODEL, WEIGHTS

from mobile_export.coreml_simulator.errors import PackageError, SimulatorError
from mobile_export.coreml_simulator.package import read_package

MEMORY = 2**23  # bytes; the samples have 14 thousand
PATIENT = settings(
    deadline=timedelta(seconds=5),
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damage(draw):
    """A function of bytes: some flipped, some put in or taken out, the end cut off."""
    flips = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4))
    cut = draw(st.none() | st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12)))
    length = draw(st.just(1.0) | st.floats(0, 1))

    def change(data):
        data = bytearray(data)
        for place, mask in flips:
            data[int(place * len(data))] ^= mask
        if cut is not None:
            begin = int(cut[0] * len(data))
            data[begin : begin + cut[1]] = cut[2]
        return bytes(data[: int(length * len(data))])

    return change


def outcome(package):
    """The digest and the constants of every function, or the error."""
    try:
        opened = read_package(package)
        programs = [opened.program(name) for name in opened.function_names]
    except SimulatorError as error:
        assert str(error).isprintable(), error
        return error
    return opened.digest, [{name: values(it) for name, it in program.constants.items()} for program in programs]


def values(constant):
    """As something that can be compared, nan included."""
    if isinstance(constant.value, torch.Tensor):
        return str(constant.type), constant.value.numpy().tobytes()
    return constant.value


def bounded_outcome(package):
    tracemalloc.start()
    try:
        result = outcome(package)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    return result


@pytest.fixture(params=["elements", "palettes", "two_functions", "stateful"])
def package(request, edited):
    sample = request.getfixturevalue(request.param)
    package = edited(sample[0] if isinstance(sample, tuple) else sample)
    read_package(package)  # what is imported on the way does not count as memory of a package
    return package


@PATIENT
@given(damage())
def test_damaged_programs(package, change):
    path = package / MODEL
    data = path.read_bytes()
    whole = outcome(package)
    assert not isinstance(whole, SimulatorError)
    try:
        path.write_bytes(change(data))
        damaged = bounded_outcome(package)
        if path.read_bytes() != data and not isinstance(damaged, SimulatorError):
            assert damaged[0] != whole[0]
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("package", ["elements", "palettes", "two_functions"], indirect=True)
@PATIENT
@given(damage())
def test_damaged_weights(package, change):
    path = package / WEIGHTS
    data = path.read_bytes()
    whole = outcome(package)
    try:
        path.write_bytes(change(data))
        damaged = bounded_outcome(package)
        if path.read_bytes() != data and not isinstance(damaged, SimulatorError):
            assert damaged[0] != whole[0]
    finally:
        path.write_bytes(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries({}, optional={"path": JSON | st.just("com.apple.CoreML/model.mlmodel")})
MANIFEST = st.fixed_dictionaries(
    {},
    optional={
        "fileFormatVersion": JSON | st.just("1.0.0"),
        "rootModelIdentifier": JSON | st.sampled_from(["a", "b"]),
        "itemInfoEntries": JSON | st.dictionaries(st.sampled_from(["a", "b"]), ENTRY | JSON),
    },
)


@PATIENT
@given(damage() | MANIFEST | JSON)
@example({"fileFormatVersion": "1.0.0", "rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "\ud800"}}})
def test_damaged_manifests(package, change):
    """Whatever the manifest says: it is refused, or the very same program is read."""
    path = package / "Manifest.json"
    data = path.read_bytes()
    whole = outcome(package)
    try:
        path.write_bytes(change(data) if callable(change) else json.dumps(change).encode())
        damaged = bounded_outcome(package)
        assert isinstance(damaged, SimulatorError) or damaged == whole
    finally:
        path.write_bytes(data)


def test_a_flip_of_a_weight_changes_digest_and_value(elements, edited):
    """Nothing in the file can tell that a weight is another one; so the digest must."""
    package = edited(elements[0])
    whole = outcome(package)
    opened = read_package(package)
    program = opened.program()
    data = (package / WEIGHTS).read_bytes()
    place = data.index(program.constants["palette8.lut"].value.numpy().tobytes())
    (package / WEIGHTS).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    flipped = outcome(package)
    assert flipped[0] != whole[0]
    assert [name for name in whole[1][0] if whole[1][0][name] != flipped[1][0][name]] == ["palette8.lut"]


def test_a_missing_weight_file_is_named(elements, edited):
    package = edited(elements[0])
    os.remove(package / WEIGHTS)
    error = outcome(package)
    assert isinstance(error, PackageError)
    assert str(error).endswith("weights lie in no file, got '@model_path/weights/weight.bin'")
