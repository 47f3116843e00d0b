"""8-bit activations whose range is found row by row: the arithmetic, the layers, and XNNPACK's own."""

import channels_last_cases
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.nn import functional

from mobile_export.backends.executorch import pieces
from mobile_export.backends.executorch.contents import missing_constants, read_contents, stored_bytes
from mobile_export.backends.executorch.layers import Convolution, MatrixProduct, convolution, product
from mobile_export.backends.executorch.lowering import lower
from mobile_export.backends.executorch.network import network_for
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.backends.executorch.support import activations_of
from mobile_export.models.component import call_network
from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.dynamic_quantize import DynamicQuantize, WindowQuantize, row_codes
from mobile_export.quantize.quantized_unet import QuantizedLayer, quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import LayerQuantization, QuantizationTable, matrix_layers
from mobile_export.quantize.weights import WeightCodes, quantize_linear

FLOATS = st.just(0.0) | st.floats(2.0**-40, 2.0**40, width=32) | st.floats(-(2.0**40), -(2.0**-40), width=32)
ROWS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9), elements=FLOATS)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dynamic(layer, bits=8):
    bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach().clone()
    return LayerQuantization(quantize_linear(layer.weight.detach(), bits), bias).with_dynamic_range()


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_every_value_is_at_most_half_a_step_of_its_own_row_off(values):
    x = torch.from_numpy(values)
    codes = row_codes(x)
    width = x.amax(-1, keepdim=True).clamp(min=0).double() - x.amin(-1, keepdim=True).clamp(max=0).double()
    # The zero point is a whole number, so that one end of the range may lie half a step outside of the codes.
    assert ((codes.dequantize().double() - x.double()).abs() <= width / 255 * 1.001).all()
    assert codes.zero_point.equal(codes.zero_point.round())
    assert codes.zero_point.abs().max() <= 128


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_zero_stays_zero_and_rows_do_not_know_of_each_other(values):
    x = torch.from_numpy(values)
    together = row_codes(x).dequantize()
    assert (together[x == 0] == 0).all()
    flat = x.reshape(-1, x.shape[-1])
    apart = torch.cat([row_codes(row[None]).dequantize() for row in flat]).reshape(x.shape)
    assert torch.equal(together, apart)


def test_rows_of_zeros_have_a_grid():
    codes = row_codes(torch.zeros(2, 3))
    assert codes.dequantize().equal(torch.zeros(2, 3))
    assert codes.scale.isfinite().all()


def test_steps_are_counted_from_zero_whose_code_may_go_either_way():
    """Where zero's code is half a step from two, rounding errors move all codes of the row, not what they stand for."""
    x = torch.tensor([[-100.5, -3.2, 0.0, 0.4, 20.1, 154.5]])
    near = x * (1 + 1e-6 * random(10_000, 6))
    quantize = DynamicQuantize()
    apart = (quantize.codes(near).int() - quantize.codes(x).int()).abs()
    steps = (quantize.steps(near) - quantize.steps(x)).abs()
    assert int(apart[:, 1:5].max()) == 1
    assert int(steps[:, 1:5].max()) == 0
    assert int(steps.max()) == 1
    pixels = x[:, :, None, None]
    assert torch.equal(WindowQuantize(nn.Conv2d(6, 1, 1)).steps(pixels).reshape(x.shape), quantize.steps(x))


@pytest.fixture(scope="module")
def identity():
    """A program that returns its rounded input: the product with the unit matrix."""
    weight = WeightCodes(torch.eye(48, dtype=torch.int8), torch.ones(48), 8)
    layer = product("x", nn.Linear(48, 48), {"x": LayerQuantization(weight, torch.zeros(48)).with_dynamic_range()})
    x = torch.zeros(1, 50_000, 48)
    return LoadedProgram(lower(layer.eval(), (x,)).data, "identity")


@pytest.mark.parametrize("seed", range(4))
def test_the_codes_are_those_of_the_delegate(identity, seed):
    """All of 2.4 million: an approximate division would flip a few of them."""
    x = random(1, 50_000, 48, seed=seed) * random(1, 50_000, 1, seed=seed + 10).exp() + random(1, 50_000, 1, seed=seed)
    ours, (theirs,) = row_codes(x), identity(x)
    assert torch.equal((theirs / ours.scale).round() + ours.zero_point, ours.codes.float())
    torch.testing.assert_close(theirs, ours.dequantize(), rtol=1e-6, atol=0)


CONVOLUTIONS = {
    "3x3": dict(kernel_size=3, padding=1),
    "3x3, stride 2": dict(kernel_size=3, padding=1, stride=2),
    "1x1": dict(kernel_size=1),
    "1x1, stride 2": dict(kernel_size=1, stride=2),
    "5x5": dict(kernel_size=5, padding=2),
    "no border": dict(kernel_size=3),
    "no bias": dict(kernel_size=3, padding=1, bias=False),
}


@pytest.mark.parametrize("settings", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_with_enough_codes_it_is_the_convolution_itself(settings):
    """On values that are codes already nothing is rounded away."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, **settings)
    x = torch.randint(-127, 128, (2, 4, 10, 12)).float()
    x[:, 0], x[:, 1] = -128.0, 127.0  # every window has the range of the codes, and keeps them
    quantize = WindowQuantize(layer)
    assert quantize.codes(x).dtype == torch.int8
    y = quantize.convolve(quantize(x), layer.weight, torch.zeros(6) if layer.bias is None else layer.bias)
    expected = functional.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("kind", "bits"), [*((kind, 8) for kind in CONVOLUTIONS), ("3x3", 4)])
def test_lowered_convolutions_compute_what_eager_pytorch_computes(kind, bits):
    torch.manual_seed(1)
    layer = nn.Conv2d(6, 5, **CONVOLUTIONS[kind])
    quantization, x = dynamic(layer, bits), random(1, 6, 9, 11)
    form = convolution("c", layer, {"c": quantization}).eval()
    program = lower(form, (x.permute(0, 2, 3, 1).contiguous(),))
    (theirs,) = LoadedProgram(program.data, "convolution")(x.permute(0, 2, 3, 1).contiguous())
    with torch.no_grad():
        ours = QuantizedLayer("c", layer, quantization)(x)
        exact = layer(x)
    torch.testing.assert_close(theirs.permute(0, 3, 1, 2), ours, rtol=1e-5, atol=1e-5)
    assert (ours - exact).norm() / exact.norm() < (0.02 if bits == 8 else 0.2)
    assert (program.delegates, program.undelegated) == (1, {})
    table = QuantizationTable(Recipe.of("w8a8"), {"c": quantization})
    assert missing_constants(read_contents(program.data, "convolution"), table) == []


def test_a_row_of_the_kernel_that_is_not_stored_is_missed():
    torch.manual_seed(2)
    layer = nn.Conv2d(4, 4, 3, padding=1)
    quantization = dynamic(layer)
    program = lower(convolution("c", layer, {"c": quantization}).eval(), (random(1, 6, 6, 4),))
    codes = quantization.weight.codes.clone()
    codes[2, 1, 1, 0] += 1
    other = LayerQuantization(WeightCodes(codes, quantization.weight.scale, 8), quantization.float_bias, dynamic=True)
    table = QuantizationTable(Recipe.of("w8a8"), {"c": other})
    assert missing_constants(read_contents(program.data, "convolution"), table) == ["c.weight.1"]
    assert set(stored_bytes(other)) == {"scale", "weight.0", "weight.1", "weight.2", "bias"}


@pytest.mark.parametrize("settings", [CONVOLUTIONS["3x3"], CONVOLUTIONS["3x3, stride 2"]], ids=["3x3", "stride 2"])
def test_pieces_of_a_large_image_are_the_whole(settings, monkeypatch):
    torch.manual_seed(3)
    layer = nn.Conv2d(4, 6, **settings)
    form, x = convolution("c", layer, {"c": dynamic(layer)}), random(1, 12, 10, 4)
    with torch.no_grad():
        whole = form(x)
        monkeypatch.setattr(pieces, "MOST_VALUES", 3 * 10 * 3 * 4)
        torch.testing.assert_close(form(x), whole, rtol=0, atol=1e-6)
    assert len(list(pieces.pieces(12, 10 * 3 * 4))) == 4


def test_linear_layers_are_rounded_row_by_row():
    torch.manual_seed(4)
    layer = nn.Linear(32, 16)
    x = torch.cat([random(1, 5, 32), 1000 * random(1, 5, 32, seed=1)], 1)
    with torch.no_grad():
        ours = QuantizedLayer("l", layer, dynamic(layer))(x)
        torch.testing.assert_close(product("l", layer, {"l": dynamic(layer)})(x), ours, rtol=1e-5, atol=1e-4)
        exact = layer(x)
    error = (ours - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert error.max() < 0.02  # of small rows beside large ones, too
    whole = DynamicQuantize()(x.reshape(1, -1)).reshape(x.shape)
    assert (whole - x)[:, :5].norm() > 10 * (DynamicQuantize()(x) - x)[:, :5].norm()


def test_the_recipe_decides():
    layer = nn.Linear(4, 4)
    grids = ActivationGrid(0.5, 0), ActivationGrid(0.25, 3)
    codes = quantize_linear(layer.weight.detach(), 8)
    layers = {
        "a": LayerQuantization(codes, torch.zeros(4), *grids),
        "b": LayerQuantization(codes, torch.zeros(4)),
    }
    changed = activations_of(QuantizationTable(Recipe.of("w8a8"), layers))
    assert changed.layers["a"].dynamic
    assert changed.layers["a"].input is changed.layers["a"].output is changed.layers["a"].bias_codes is None
    assert not changed.layers["b"].dynamic  # floating-point activations stay what they are
    assert isinstance(product("a", layer, layers), MatrixProduct)
    assert isinstance(convolution("n", nn.Conv2d(1, 1, 1), {}), Convolution)
    same = QuantizationTable(Recipe.of("w8a8", activations="static"), layers)
    assert activations_of(same) is same


def test_a_grid_and_a_range_found_at_run_time_exclude_each_other():
    codes = quantize_linear(torch.ones(2, 2), 8)
    with pytest.raises(ValueError, match="no grids"):
        LayerQuantization(codes, torch.zeros(2), ActivationGrid(0.5, 0), None, dynamic=True)


@pytest.mark.parametrize("recipe", ["w8a8", "w4a8"])
def test_a_whole_unet_in_lock_step(recipe):
    unet = tiny.make_unet()
    inputs = {
        "sample": random(1, 3, 8, 8),
        "timestep": torch.tensor([500.0]),
        "class_labels": torch.tensor([1]),
    }
    found, table = channels_last_cases.eager_lockstep(unet, inputs, recipe, "dynamic")
    assert found.points == sum(layer.dynamic for layer in table.layers.values())  # inputs alone: outputs are float32
    assert 0 < len(table.layers) - found.points == sum(name.endswith("conv_shortcut") for name in table.layers)
    assert found.worst_step <= 1
    assert found.flip_rate < 1e-3
    assert found.output_error < 1e-5


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_a_unet_of_which_some_layers_have_float_inputs_is_one_delegate_and_in_lock_step(activations):
    unet = tiny.make_unet()
    layers = {"mid_block.resnets.0.conv1": "w4a16", "up_blocks.0.resnets.0.conv2": "w8a16"}
    free = [name for name, _ in matrix_layers(unet) if name.endswith("conv_shortcut") or name in layers]
    recipe = Recipe.from_dict({"precision": "w4a8", "activations": activations, "layers": layers})
    inputs = {"sample": random(1, 3, 8, 8), "timestep": torch.tensor([500.0]), "class_labels": torch.tensor([1])}
    found, table = channels_last_cases.eager_lockstep(unet, inputs, recipe)
    assert found.points == channels_last_cases.ENDS[activations] * (len(table.layers) - len(free))
    assert found.worst_step <= 1
    assert found.flip_rate < 1e-3
    assert found.output_error < 1e-5
    lowered = lower(network_for(unet, table.layers).eval(), tuple(inputs.values()))
    assert lowered.delegates == 1 and lowered.undelegated == {"aten.embedding.default": 1}
    with torch.no_grad():
        exact = call_network(quantized_model(unet, table), inputs)
    (ours,) = LoadedProgram(lowered.data, "some float inputs")(*inputs.values())
    assert float((ours - exact).norm() / exact.norm()) < 1e-3  # codes at a tie may go either way
