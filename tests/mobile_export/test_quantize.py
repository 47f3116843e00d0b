"""Quantization: what is observed, the table and the model that computes with it."""

import math

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from correction import UsageError
from mobile_export.backends.coreml.network import half_constants
from mobile_export.quantize import observation
from mobile_export.quantize.observation import correlation_memory, input_groups, observe_layers
from mobile_export.quantize.precision import PRECISIONS, Precision
from mobile_export.quantize.quantized_unet import QuantizedLayer, quantized_model
from mobile_export.quantize.recipe import KEPT_IN_FLOAT, Recipe
from mobile_export.quantize.table import quantize_layers
from mobile_export.quantize.weights import quantize_linear

few = settings(max_examples=50, deadline=None)


def test_layers_are_observed_at_both_ends_and_the_hooks_are_gone_afterwards():
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.SiLU(), nn.Linear(2, 1))
    network[0].weight.data = torch.tensor([[2.0, 0.0], [0.0, -3.0]])
    seen = observe_layers(network, lambda: network(torch.tensor([[0.0, 0.0], [1.0, 1.0]])))
    assert set(seen) == {"0", "2"}
    covered = [((-128 - g.zero_point) * g.scale, (127 - g.zero_point) * g.scale) for g in seen["0"].grids()]
    np.testing.assert_allclose(covered, [(0, 1), (-3, 2)], atol=0.02)
    assert not any(module._forward_hooks for module in network.modules())

    def broken():
        raise RuntimeError("no run")

    with pytest.raises(RuntimeError, match="no run"):
        observe_layers(network, broken)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(3, 1, 1, 1), (3, 2, 1, 1), (1, 1, 0, 1), (3, 1, 2, 2), ((1, 3), (2, 1), (0, 1), (1, 2)), (2, 3, 1, 1)],
)
def test_input_rows_are_what_an_output_is_computed_from(kernel, stride, padding, dilation):
    """W X X^T W^T from the observed correlation is the energy of the layer's outputs."""
    network = nn.Sequential(nn.Conv2d(3, 4, kernel, stride, padding, dilation, bias=False))
    x = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    seen = observe_layers(network, lambda: network(x))["0"].correlation
    weight = network[0].weight.detach().flatten(1).double()
    y = network(x).detach().double()[0].flatten(1)
    assert seen.rows == y.shape[1]
    (total,) = seen.total.double()
    torch.testing.assert_close(weight @ total @ weight.T, y @ y.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.energy, total.diagonal(), rtol=1e-5, atol=0)


def test_inputs_in_groups_are_correlated_with_those_of_their_group_alone():
    network = nn.Sequential(nn.Conv2d(4, 2, (1, 3)), nn.Linear(4, 2))
    x = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    (whole,) = observe_layers(network, lambda: network(x))["0"].correlation.total
    work = observation.BYTES_PER_ENTRY * 6**2  # two channels of three inputs each
    seen = observe_layers(network, lambda: network(x), memory=work)
    groups = torch.stack([whole[:6, :6], whole[6:, 6:]])
    torch.testing.assert_close(seen["0"].correlation.total, groups, rtol=1e-5, atol=1e-5)
    assert seen["1"].correlation.total.shape == (1, 4, 4)
    table = quantize_layers(network, seen, Recipe.of("w4a8"))
    assert table.input_groups == {"0": 2, "1": 1}
    without = observe_layers(network, lambda: network(x), memory=0)
    assert without["0"].correlation.total is None
    torch.testing.assert_close(without["0"].correlation.energy, whole.diagonal().double(), rtol=1e-6, atol=0)
    plain = quantize_layers(network, without, Recipe.of("w4a8"))
    assert plain.input_groups == {"0": 12, "1": 4}
    assert torch.equal(plain.layers["0"].weight.codes, quantize_linear(network[0].weight, 4).codes)


@pytest.mark.parametrize(
    ("weights", "bytes_"), [(1, 2**28), (2**27, 2**28), (2**28, 2**29), (2**29, 2**30), (2**29 + 2**20, 2**30)]
)
def test_correlations_take_half_the_memory_of_the_float_weights_within_limits(weights, bytes_):
    network = nn.Linear(weights // 2**20 or 1, min(weights, 2**20), bias=False, device="meta")
    assert correlation_memory(network) == bytes_


def test_by_default_the_inputs_of_a_medium_network_are_divided_as_its_weights_allow():
    network = nn.Sequential(nn.Linear(6144, 2), nn.Linear(2, 6144), nn.Linear(6144, 6144))
    x = torch.ones(1, 6144)  # 6144 inputs take 144 MiB, and 864 at work
    groups = {
        name: seen.correlation.total.shape[0] for name, seen in observe_layers(network, lambda: network(x)).items()
    }
    assert groups == {"0": 2, "1": 1, "2": 2}


layer_shapes = st.tuples(st.integers(1, 64), st.sampled_from([1, 3]), st.sampled_from([1, 3]))


@few
@given(st.dictionaries(st.text(min_size=1), layer_shapes, min_size=1, max_size=5), st.integers(0, 2_000_000))
def test_groups_fit_into_the_memory_and_are_as_few_as_that_allows(shapes, memory):
    def bytes_of(groups):
        return sum(4 * math.prod(shapes[name]) ** 2 // count for name, count in groups.items())

    groups = input_groups(shapes, memory)
    if not groups:
        taps = max(h * w for _, h, w in shapes.values())  # no group can be narrower than one channel of each layer
        narrowest = {
            name: min(g for g in range(1, c + 1) if c % g == 0 and c // g * h * w <= taps)
            for name, (c, h, w) in shapes.items()
        }
        assert bytes_of(narrowest) > memory or observation.BYTES_PER_ENTRY * taps**2 > memory
        return
    assert groups.keys() == shapes.keys() and bytes_of(groups) <= memory
    assert all(shapes[name][0] % count == 0 for name, count in groups.items())
    widest = max(math.prod(shapes[name]) // count for name, count in groups.items())
    assert observation.BYTES_PER_ENTRY * widest**2 <= memory
    largest = observation.BYTES_PER_ENTRY * max(math.prod(shape) for shape in shapes.values()) ** 2
    if bytes_of(dict.fromkeys(shapes, 1)) <= memory and largest <= memory:
        assert set(groups.values()) == {1}


@pytest.mark.parametrize(
    ("recipe", "ranges", "energy", "total"),
    [("w8a8", True, True, True), ("w4a8", True, True, True), ("w8a16", False, True, True)]
    + [("w6a16", False, True, True), ("w3a16", False, True, True), ("w1a16", False, True, False)],
)
def test_what_a_recipe_does_not_need_is_not_kept(recipe, ranges, energy, total):
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    recipe = Recipe.from_dict({"precision": recipe, "layers": {"1": "float"}})
    needed, everything = (
        observe_layers(network, lambda: network(x), recipe),
        observe_layers(network, lambda: network(x)),
    )
    assert needed.keys() == {"0"} and everything.keys() == {"0", "1"}
    seen = needed["0"]
    assert bool(seen.input.sample) == bool(seen.output.sample) == ranges
    assert (seen.correlation.energy is not None, seen.correlation.total is not None) == (energy, total)
    tables = [quantize_layers(network, each, recipe).digest() for each in (needed, everything)]
    assert tables[0] == tables[1]


def test_weights_alone_need_no_observation_and_activations_do():
    network = nn.Sequential(nn.Linear(4, 4))
    table = quantize_layers(network, {}, Recipe.of("w4a16"))
    assert torch.equal(table.layers["0"].weight.codes, quantize_linear(network[0].weight, 4).codes)
    assert table.input_groups == {"0": 4}
    with pytest.raises(UsageError, match=r"^0 was not observed: 8-bit activations need the ranges of every layer"):
        quantize_layers(network, {}, Recipe.of("w8a8"))


def test_quantizing_tells_how_far_it_is():
    network, done = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 2)), []
    quantize_layers(network, {}, Recipe.of("w8a16"), lambda *each: done.append(each))
    assert done == [(1, 2), (2, 2)]


def test_convolutions_in_groups_have_ranges_but_no_correlation():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    seen = observe_layers(network, lambda: network(torch.ones(1, 4, 5, 5)))["0"]
    assert seen.input.high == 1 and seen.correlation == observation.InputCorrelation()


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"}])
def test_a_border_that_is_not_a_number_of_zeros_is_refused(options):
    network = nn.Sequential(nn.Conv2d(1, 1, 3, **options))
    with pytest.raises(UsageError, match=r"^0: padding .* is not supported; supported: numbers, with zeros$"):
        observe_layers(network, lambda: None)


# policy and table


@pytest.mark.parametrize("name", PRECISIONS)
def test_precisions_by_name(name):
    assert Precision.parse(name).name == name


@pytest.mark.parametrize("name", ["w3a8", "w5a16", "w8", "W4A8", "w4a8 ", "w04a8", "w٤a8", "", "fp32"])
def test_an_unknown_precision_names_those_that_exist(name):
    with pytest.raises(
        UsageError, match=r"unknown precision .*: choose one of w8a8, w4a8, w8a16, w6a16, w4a16, w3a16, w2a16, w1a16$"
    ):
        Precision.parse(name)


def layers_of(network):
    return {name: m for name, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}


def some_table(network, run, recipe="w4a8"):
    observations = observe_layers(network, run)
    grids = {name: seen.grids() for name, seen in observations.items()}
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.of(recipe)
    return quantize_layers(network, observations, recipe), grids


def unet_table(precision="w4a8"):
    unet = tiny.make_unet()
    sample = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    table, grids = some_table(unet, lambda: unet(sample, 500, class_labels=torch.arange(4)), precision)
    return unet, table, grids


@pytest.mark.parametrize("precision", PRECISIONS)
def test_time_path_and_shortcuts_keep_8_bits_these_float_inputs_and_the_image_stays_float(precision):
    unet, table, _ = unet_table(precision)
    assert set(table.layers) == set(layers_of(unet)) - {"conv_in", "conv_out"}
    assert set(KEPT_IN_FLOAT) == {"conv_in", "conv_out"}
    time = {name for name in table.layers if "time_emb" in name}
    assert {"time_embedding.linear_1", "time_embedding.linear_2", "mid_block.resnets.0.time_emb_proj"} <= time
    shortcuts = {name for name in table.layers if name.endswith("conv_shortcut")}
    assert shortcuts
    weight_only = Precision.parse(precision).weight_only
    assert {name for name, layer in table.layers.items() if layer.input is None} == (
        set(table.layers) if weight_only else shortcuts
    )
    for name, layer in table.layers.items():
        expected = 8 if name in time | shortcuts else Precision.parse(precision).weight_bits
        assert layer.weight.bits == expected
    sizes = {name: module.weight.numel() for name, module in layers_of(unet).items()}
    bits = {name: table.layers[name].weight.bits if name in table.layers else 32 for name in sizes}
    assert table.weight_bits_achieved(unet) == sum(sizes[n] * bits[n] for n in sizes) / sum(sizes.values())
    assert table.float_layers(unet) == ["conv_in", "conv_out"]


def test_a_table_holds_grids_and_biases_in_steps_of_the_product():
    unet, table, grids = unet_table()
    rounded = {name: layer for name, layer in table.layers.items() if not name.endswith("conv_shortcut")}
    assert len(rounded) < len(table.layers)
    for name, layer in rounded.items():
        assert (layer.input, layer.output) == grids[name]
        step = layer.input.scale * layer.weight.scale.double()
        exact = layers_of(unet)[name].bias.double()
        assert layer.bias_codes.dtype == torch.int32
        assert torch.equal(layer.bias_codes, (exact / step).round().int())
        assert ((layer.bias.double() - exact).abs() <= step * 0.5001).all()


def test_weights_of_8_and_of_4_bits_are_rounded_to_their_inputs():
    unet, table, _ = unet_table()
    differ = {
        name
        for name, layer in table.layers.items()
        if not torch.equal(layer.weight.codes, quantize_linear(layers_of(unet)[name].weight, layer.weight.bits).codes)
    }
    assert differ == table.layers.keys() and {layer.weight.bits for layer in table.layers.values()} == {4, 8}


KEEP_1 = {"precision": "w4a8", "layers": {"1": "float"}}


def test_a_layer_without_bias_has_bias_code_zero_and_kept_layers_are_absent():
    network = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Linear(5, 2))
    table, _ = some_table(network, lambda: network(torch.ones(1, 3)), Recipe.from_dict(KEEP_1))
    assert set(table.layers) == {"0"}
    assert table.layers["0"].bias_codes.tolist() == [0] * 5


def test_a_bias_beyond_32_bits_is_clamped_not_wrapped():
    network = nn.Sequential(nn.Linear(8, 2))
    network[0].weight.data = torch.full((2, 8), 1e-9)
    network[0].bias.data = torch.tensor([1e9, -1e9])  # in steps of 2^-14 / 255
    table, _ = some_table(network, lambda: network(torch.ones(1, 8)), "w8a8")
    assert table.layers["0"].bias_codes.tolist() == [2**31 - 1, -(2**31 - 1)]


def test_the_quantized_model_computes_with_the_tables_integers_and_leaves_the_reference_alone():
    unet, table, _ = unet_table()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    twin = quantized_model(unet, table)
    for name, layer in table.layers.items():
        found = twin.get_submodule(name)
        assert isinstance(found, QuantizedLayer)
        assert torch.equal(found.weight_values(), layer.weight.dequantize()) and torch.equal(found.bias, layer.bias)
        if layer.input is not None:
            assert (found.quantize_input.grid, found.quantize_output.grid) == (layer.input, layer.output)
        assert torch.equal(found.weight, layer.weight.dequantize())
    assert not any(isinstance(m, QuantizedLayer) for m in unet.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


@pytest.mark.parametrize("recipe", ["w4a8", "w3a16"])
def test_the_quantized_model_and_its_float16_twin_copy_no_weights(recipe):
    unet, table, _ = unet_table(recipe)
    twin = quantized_model(unet, table)
    half = half_constants(twin)
    for name, layer in table.layers.items():
        codes = next(iter(layer.weight.tensors.values()))
        for network in (twin, half):
            held = network.get_submodule(name).weight_values.codes
            held = held if torch.is_tensor(held) else next(iter(held.tensors.values()))
            assert held.data_ptr() == codes.data_ptr()
    shared = {tensor.data_ptr() for tensor in unet.state_dict().values()}
    for name, tensor in unet.named_parameters():
        if name.rpartition(".")[0] not in table.layers:
            assert twin.get_parameter(name).data_ptr() == tensor.data_ptr()
            assert half.get_parameter(name).data_ptr() not in shared
            assert torch.equal(half.get_parameter(name), tensor.half().float())
    assert twin is not unet and not any(m in set(unet.modules()) for m in twin.modules())


def test_a_quantized_layer_is_rounded_at_both_ends():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1))
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    table, _ = some_table(network, lambda: network(x))
    layer = table.layers["0"]
    on_grid = torch.from_numpy(layer.input.round_trip(x.double().numpy())).float()
    exact = torch.nn.functional.conv2d(on_grid, layer.weight.dequantize(), layer.bias, 2, 1)
    expected = torch.from_numpy(layer.output.round_trip(exact.double().numpy())).float()
    torch.testing.assert_close(quantized_model(network, table)(x), expected, atol=layer.output.scale * 1.001, rtol=0)
    assert (quantized_model(network, table)(x) == expected).float().mean() > 0.99
