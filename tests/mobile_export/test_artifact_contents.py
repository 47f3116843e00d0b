"""The artifact holds the table's integers, byte for byte."""

import dataclasses
import hashlib
import mmap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from correction import CheckFailed
from mobile_export.backends.executorch import contents as contents_module
from mobile_export.backends.executorch.contents import file_contents, missing_constants, read_contents, stored_bytes
from mobile_export.backends.executorch.convolution_geometry import as_matrix
from mobile_export.backends.executorch.support import activations_of
from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.table import LayerQuantization, QuantizationTable
from mobile_export.quantize.weights import WeightCodes


@pytest.fixture(params=["w4a8", "w8a8"])
def exported(request):
    """One with ranges found at run time, and one with static grids; the table is as the artifact has it."""
    found = request.getfixturevalue(request.param)
    return dataclasses.replace(found, table=activations_of(found.table))


def with_layer(table, name, layer):
    return QuantizationTable(table.recipe, {**table.layers, name: layer})


def test_every_layers_weights_scales_and_biases_are_in_the_file(exported):
    data = exported.bundle.artifact("executorch").read_bytes()
    contents = read_contents(data, "artifact")
    assert missing_constants(contents, exported.table) == []
    for layer in exported.table.layers.values():
        for part in stored_bytes(layer).values():
            assert part in data  # not by digest: the bytes themselves


def test_one_other_code_names_the_layer(exported):
    contents = read_contents(exported.bundle.artifact("executorch").read_bytes(), "artifact")
    for name, layer in exported.table.layers.items():
        codes = layer.weight.codes.clone()
        codes.view(-1)[-1] += -1 if codes.view(-1)[-1] > 0 else 1
        weight = dataclasses.replace(layer.weight, codes=codes)
        changed = with_layer(exported.table, name, dataclasses.replace(layer, weight=weight))
        last = f".{codes.shape[2] - 1 if codes.dim() == 4 else 0}" if layer.dynamic else ""  # row of the kernel
        assert missing_constants(contents, changed) == [f"{name}.weight{last}"]


def test_another_scale_and_another_bias_are_named(exported):
    contents = read_contents(exported.bundle.artifact("executorch").read_bytes(), "artifact")
    name, layer = next(iter(exported.table.layers.items()))
    scale, codes = layer.weight.scale.clone(), layer.bias_codes
    scale[0] = torch.nextafter(scale[0].half(), torch.tensor(1.0).half())
    rescaled = dataclasses.replace(layer, weight=dataclasses.replace(layer.weight, scale=scale))
    if codes is not None:  # in steps of the scale
        rescaled = with_bias_codes(rescaled, codes)
    assert missing_constants(contents, with_layer(exported.table, name, rescaled)) == [f"{name}.scale"]
    first = torch.eye(len(layer.float_bias))[0]
    if codes is None:
        biased = dataclasses.replace(layer, float_bias=layer.float_bias + first)
    else:
        biased = with_bias_codes(layer, codes + first.int())
    assert missing_constants(contents, with_layer(exported.table, name, biased)) == [f"{name}.bias"]


def with_bias_codes(layer, codes):
    changed = dataclasses.replace(layer, float_bias=(codes * layer.bias_step).float())
    assert torch.equal(changed.bias_codes, codes)
    return changed


def layer_of(codes, bits):
    count = len(codes)
    weight = WeightCodes(torch.from_numpy(codes), torch.ones(count), bits)
    return LayerQuantization(weight, torch.zeros(count), ActivationGrid(1, 0), ActivationGrid(1, 0))


def unpacked(data, rows, columns):
    """Nibbles to codes: low nibble first, code + 8."""
    pairs = np.frombuffer(data, np.uint8).reshape(rows, -1)
    return np.stack([pairs & 15, pairs >> 4], -1).reshape(rows, -1)[:, :columns].astype(np.int8) - 8


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-8, 7)))
def test_nibbles_are_unpacked_to_the_same_codes(codes):
    rows, columns = codes.shape
    data = stored_bytes(layer_of(codes, 4))["weight"]
    assert len(data) == rows * ((columns + 1) // 2)
    np.testing.assert_array_equal(unpacked(data, rows, columns), codes)
    if columns % 2:
        assert (unpacked(data, rows, columns + 1)[:, -1] == 0).all()


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.int8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=4)), st.integers(0, 2**32 - 1))
def test_convolution_weights_become_rows_of_taps_with_channels_innermost(codes, _seed):
    matrix = as_matrix(torch.from_numpy(codes)).numpy()
    outputs, inputs, height, width = codes.shape
    assert matrix.shape == (outputs, inputs * height * width)
    for y in range(height):
        for x in range(width):
            first = (y * width + x) * inputs
            np.testing.assert_array_equal(matrix[:, first : first + inputs], codes[:, :, y, x])


def test_scales_are_found_under_their_own_prefix(exported):
    """XNNPACK names scales apart from weights; the same digest without prefix would be a weight."""
    contents = read_contents(exported.bundle.artifact("executorch").read_bytes(), "artifact")
    scale = stored_bytes(next(iter(exported.table.layers.values())))["scale"]
    assert contents.constants["scale_" + hashlib.sha256(scale).hexdigest()] == len(scale)


@pytest.mark.parametrize("data", [b"", b"nothing", bytes(1000), b"\xff" * 4096])
def test_what_is_no_program_is_named(data):
    with pytest.raises(CheckFailed, match=r"somewhere.pte is not a readable ExecuTorch program"):
        read_contents(data, "somewhere.pte")


@pytest.mark.parametrize("data", [b"", b"nothing", bytes(1000)])
def test_a_file_that_is_no_program_is_named(data, tmp_path):
    path = tmp_path / "somewhere.pte"
    path.write_bytes(data)
    with pytest.raises(CheckFailed, match=r"somewhere.pte is not a readable ExecuTorch program"):
        file_contents(path)


def test_a_file_is_read_without_copies_of_it(exported):
    """The same contents as from its bytes; what is parsed is the mapped file."""
    path = exported.bundle.artifact("executorch")
    assert file_contents(path) == read_contents(path.read_bytes(), "artifact")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents_module, "read_contents", lambda data, source: seen.append((type(data.obj), len(data))))
        file_contents(path)
    assert seen == [(mmap.mmap, path.stat().st_size)]
