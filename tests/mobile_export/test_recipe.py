"""Recipes: what each layer becomes, by default and by exception; files that say it, and what is wrong in them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from correction import UsageError
from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.precision import PRECISIONS
from mobile_export.quantize.recipe import FLOAT, LayerRecipe, Recipe
from mobile_export.quantize.table import QuantizationTable, quantize_layers
from mobile_export.quantize.weight_format import WEIGHT_BITS, WeightFormat

EXAMPLE = {
    "precision": "w4a16",
    "format": "palette16",
    "layers": {
        "mid_block.attentions.0.to_q": "w8 channel",
        "conv_in": "w8",
        "conv_out": "w4",
        "up_blocks.0.resnets.0.conv1": "float",
        "time_embedding.linear_1": "w2",
    },
}


def test_defaults_and_exceptions_layer_by_layer():
    recipe = Recipe.from_dict(EXAMPLE)
    found = {
        name: recipe.layer(name).name
        for name in (*EXAMPLE["layers"], "down_blocks.0.resnets.0.conv1", "mid_block.resnets.0.time_emb_proj")
    }
    assert found == {
        "mid_block.attentions.0.to_q": "w8 channel",
        "conv_in": "w8 channel",  # 8 bits in their own default format: that of the file is for 4 bits
        "conv_out": "w4 palette16",
        "up_blocks.0.resnets.0.conv1": "float",
        "time_embedding.linear_1": "w2 palette",
        "down_blocks.0.resnets.0.conv1": "w4 palette16",
        "mid_block.resnets.0.time_emb_proj": "w8 channel",
    }


def test_the_example_of_the_page_is_a_recipe_and_becomes_what_the_page_says():
    page = (Path(__file__).parents[2] / "docs/recipes.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    recipe = Recipe.from_dict(json.loads(example))
    assert recipe.layer("conv_in").name == "w8 channel" and recipe.layer("conv_out") == FLOAT
    assert all(f"`{name}`" in page for name in (*PRECISIONS, "channel", "block32", "palette16", "palette"))


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_precision_is_a_recipe(name):
    recipe = Recipe.of(name)
    bits = recipe.precision.weight_bits
    assert recipe.precision.name == name and recipe.format == WeightFormat.default(bits)
    assert recipe.layer("conv_in") == recipe.layer("conv_out") == FLOAT
    assert recipe.layer("any.other") == LayerRecipe(bits, recipe.format)
    assert recipe.layer("time_embedding.linear_2") == LayerRecipe(8, WeightFormat("channel"))
    assert list(recipe.choices()) == [(name, LayerRecipe(bits, recipe.format))]


@pytest.mark.parametrize("name", ["w8a8", "w4a8", "w8a16", "w4a16"])
def test_the_rules_of_a_unet_leave_text_encoders_and_autoencoders_alone(name):
    recipe = Recipe.of(name)
    for layer in ("decoder.conv_in", "decoder.conv_out", "encoder.conv_in", "text_model.encoder.layers.0.mlp.fc1"):
        assert recipe.layer(layer) == LayerRecipe(recipe.precision.weight_bits, recipe.format)
    for layer in ("time_embedding.cond_proj", "class_embedding.linear_1", "add_embedding.linear_2"):
        assert recipe.layer(layer) == LayerRecipe(8, WeightFormat("channel"))


def layer_recipes():
    pairs = [(b, f) for b in WEIGHT_BITS for f in map(WeightFormat.parse, FORMATS) if b in f.bits]
    return st.sampled_from([FLOAT, *(LayerRecipe(*pair, inputs) for pair in pairs for inputs in (False, True))])


FORMATS = ("channel", "block32", "block8", "palette16", "palette4", "palette")


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(PRECISIONS), st.data())
def test_a_recipe_comes_back_from_its_names(name, data):
    bits = Recipe.of(name).precision.weight_bits
    format = data.draw(st.sampled_from([f for f in FORMATS if bits in WeightFormat.parse(f).bits]))
    layers = data.draw(st.dictionaries(st.text(min_size=1), layer_recipes(), max_size=4))
    plain = Recipe.of(name, format)
    recipe = Recipe(plain.precision, plain.format, layers)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_a_recipe_is_read_from_a_file(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(EXAMPLE))
    assert Recipe.read(path) == Recipe.from_dict(EXAMPLE)
    path.write_text('{"precision": "w8a8"}')
    assert Recipe.read(path) == Recipe.of("w8a8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not readable JSON"),
        ("\xff", "is not readable JSON"),
        ("[" * 100_000, "is not readable JSON"),
        ("[]", 'expected an object like {"precision": "w4a16"}, got list'),
        ("{}", 'precision must be a name, as in "w4a16" or "palette16", got None'),
        ('{"precision": 4}', 'precision must be a name, as in "w4a16" or "palette16", got 4'),
        ('{"precision": "w5a16"}', "unknown precision 'w5a16': choose one of w8a8, w4a8,"),
        ('{"precision": "w4a16", "format": null}', "format must be a name"),
        ('{"precision": "w4a16", "format": "lut"}', "unknown weight format 'lut': choose channel, block32"),
        ('{"precision": "w6a16", "format": "block32"}', "weight format 'block32' has no 6-bit weights: it has 4, 8"),
        ('{"precision": "w4a16", "layer": {}}', "unknown key 'layer': it may have precision, format, layers"),
        ('{"precision": "w4a8", "rounding": "up"}', "rounding must be one of inputs, nearest, got 'up'"),
        ('{"precision": "w4a8", "rounding": 1}', "rounding must be one of inputs, nearest, got 1"),
        ('{"precision": "w4a8", "activations": "fixed"}', "activations must be one of dynamic, static, got 'fixed'"),
        ('{"precision": "w4a8", "activations": []}', "activations must be one of dynamic, static, got []"),
        ('{"precision": "w4a16", "layers": []}', 'layers must be an object like {"conv_in": "w8"}, got list'),
        ('{"precision": "w4a16", "layers": {"a": 8}}', 'layers.a: a layer cannot be 8: say "float", or "w" and'),
        ('{"precision": "w4a16", "layers": {"a": "8"}}', "layers.a: a layer cannot be '8': say \"float\", or"),
        ('{"precision": "w4a16", "layers": {"a": "w5"}}', "layers.a: 5-bit weights do not exist: choose 1, 2, 3, 4"),
        ('{"precision": "w4a16", "layers": {"a": "w4 lut"}}', "layers.a: unknown weight format 'lut'"),
        ('{"precision": "w4a16", "layers": {"a": "w1 channel"}}', "layers.a: weight format 'channel' has no 1-bit"),
        ('{"precision": "w4a16", "layers": {"a": "w4", "a": "w8"}}', "'a' is there twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(tmp_path, text, message):
    path = tmp_path / "recipe.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=f"^recipe {re.escape(str(path))}:? .*{re.escape(message)}"):
        Recipe.read(path)


def test_a_file_that_is_missing_or_too_large(tmp_path):
    with pytest.raises(UsageError, match=r"recipe .*absent\.json cannot be read: No such file or directory"):
        Recipe.read(tmp_path / "absent.json")
    path = tmp_path / "large.json"
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UsageError, match=r"recipe .*large\.json is larger than 1048576 bytes"):
        Recipe.read(path)


def test_rounding_to_nearest_is_said_where_it_is_asked_for():
    plain = Recipe.from_dict({"precision": "w4a8", "rounding": "nearest"})
    assert plain.as_dict()["rounding"] == "nearest" and Recipe.from_dict(plain.as_dict()) == plain
    assert "rounding" not in Recipe.of("w4a8").as_dict() and plain != Recipe.of("w4a8")
    assert Recipe.of("w4a8").looks_at_inputs(4) and not plain.looks_at_inputs(4)


def test_activations_are_said_where_they_have_8_bits():
    assert Recipe.of("w4a8").as_dict()["activations"] == "dynamic"
    static = Recipe.from_dict({"precision": "w4a8", "activations": "static"})
    assert static == Recipe.of("w4a8", activations="static") != Recipe.of("w4a8")
    assert Recipe.from_dict(static.as_dict()) == static
    assert "activations" not in Recipe.of("w4a16").as_dict()


def test_shortcuts_keep_8_bits_and_float_inputs_unless_a_file_says_otherwise():
    name = "up_blocks.2.resnets.0.conv_shortcut"
    assert Recipe.of("w4a8").layer(name).name == Recipe.of("w8a8").layer(name).name == "w8a16 channel"
    assert Recipe.of("w2a16").layer(name).name == "w8 channel"  # where no inputs are rounded anyway
    assert Recipe.from_dict({"precision": "w4a8", "layers": {name: "w4"}}).layer(name).name == "w4 channel"


def test_inputs_of_a_layer_stay_in_floating_point_where_it_is_asked_for():
    layers = {"1": "w8a16", "2": "w4a16 channel"}
    recipe = Recipe.from_dict({"precision": "w4a8", "layers": layers})
    assert recipe.layer("1") == LayerRecipe(8, WeightFormat("channel"), float_inputs=True)
    assert recipe.as_dict()["layers"] == {"1": "w8a16 channel", "2": "w4a16 channel"}
    network, x = nn.Sequential(*(nn.Linear(6, 6) for _ in range(3))), torch.randn(9, 6)
    seen = observe_layers(network, lambda: network(x), recipe)
    assert [bool(seen[name].input.sample) for name in "012"] == [True, False, False]
    table = quantize_layers(network, seen, recipe)
    assert [layer.input is not None for layer in table.layers.values()] == [True, False, False]
    assert [layer.dynamic for layer in table.with_dynamic_ranges().layers.values()] == [True, False, False]
    assert [layer.weight.bits for layer in table.layers.values()] == [4, 8, 4]


def test_rounding_to_nearest_looks_at_no_inputs():
    """The codes are those of the weights alone, and no correlation is kept for them."""
    network, x = nn.Sequential(nn.Linear(24, 6)), torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    nearest = Recipe.from_dict({"precision": "w4a16", "rounding": "nearest"})
    tables = []
    for recipe in (Recipe.of("w4a16"), nearest):
        seen = observe_layers(network, lambda: network(x), recipe)
        assert (seen["0"].correlation.total is None) == (recipe is nearest)
        tables.append(quantize_layers(network, seen, recipe))
    alone = quantize_layers(network, {}, Recipe.of("w4a16"))
    assert torch.equal(tables[1].layers["0"].weight.codes, alone.layers["0"].weight.codes)
    assert not torch.equal(tables[0].layers["0"].weight.codes, alone.layers["0"].weight.codes)
    # Also where the inputs were seen.
    known = observe_layers(network, lambda: network(x), Recipe.of("w4a16"))
    assert torch.equal(
        quantize_layers(network, known, nearest).layers["0"].weight.codes, alone.layers["0"].weight.codes
    )


@pytest.mark.parametrize(("bits", "format"), [(None, WeightFormat("channel")), (4, None)])
def test_bits_and_format_go_together(bits, format):
    with pytest.raises(UsageError, match="bits and format go together"):
        LayerRecipe(bits, format)


def network_of(layers):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(24, 24, 3), nn.Flatten(), nn.Linear(24, 6, bias=False))
    x = torch.randn(4, 24, 3, 3, generator=torch.Generator().manual_seed(0))
    recipe = Recipe.from_dict({"precision": "w4a16", "format": "block16", "layers": layers})
    return network, quantize_layers(network, observe_layers(network, lambda: network(x)), recipe)


def test_a_table_says_which_layers_took_another_format_and_what_they_take():
    network, table = network_of({"0": "w3 palette16"})
    assert {name: (a.name, b.name) for name, (a, b) in table.refitted().items()} == {
        "0": ("palette16", "palette8"),
        "2": ("block16", "channel"),
    }
    codes, weights = 3 * 24 * 24 * 9 + 4 * 6 * 24, 24 * 24 * 9 + 6 * 24
    assert table.weight_bits_achieved(network) == codes / weights
    assert table.stored_bits(network) == (codes + 16 * (3 * 8 + 6)) / weights
    assert table.layers["2"].input is table.layers["2"].bias_codes is None
    assert torch.equal(table.layers["0"].bias, network[0].bias) and not table.layers["2"].bias.any()


def test_a_layer_kept_in_float_is_counted_with_32_bits():
    network, table = network_of({"0": "float"})
    assert table.refitted().keys() == {"2"} and table.float_layers(network) == ["0"]
    assert table.stored_bits(network) == (32 * 24 * 24 * 9 + 4 * 144 + 16 * 6) / (24 * 24 * 9 + 144)


def test_a_layer_that_the_network_does_not_have_is_named_with_those_close_to_it():
    unet = tiny.make_unet()
    recipe = Recipe.from_dict({"precision": "w4a16", "layers": {"mid_block.resnets.0.conv": "w8"}})
    close = "close to it: mid_block.resnets.0.conv2, mid_block.resnets.0.conv1"
    with pytest.raises(
        UsageError, match=f"names 'mid_block.resnets.0.conv', which is no layer of the network; {close}"
    ):
        quantize_layers(unet, {}, recipe)
    with pytest.raises(UsageError, match=r"names 'zzz', which is no layer of the network$"):
        Recipe.from_dict({"precision": "w4a16", "layers": {"zzz": "w8"}}).require_layers(["conv_in"])


def test_the_digest_is_of_the_recipe_and_of_every_number():
    _, table = network_of({})
    assert table.digest() == network_of({})[1].digest()
    changed = [network_of({"0": "w4 channel"})[1], network_of({"2": "float"})[1], network_of({"2": "w4 block16"})[1]]
    layer = table.layers["0"]
    bias = replace(layer, float_bias=layer.float_bias + 1)
    codes = replace(layer, weight=replace(layer.weight, codes=layer.weight.codes.flip(1)))
    grid = replace(layer, input=ActivationGrid(1.0, 0))
    changed += [QuantizationTable(table.recipe, {**table.layers, "0": other}) for other in (bias, codes, grid)]
    assert len({table.digest(), *(other.digest() for other in changed)}) == 1 + len(changed)


# what ExecuTorch has


@pytest.mark.parametrize(
    "content",
    [
        {"precision": "w8a8"},
        {"precision": "w8a16"},
        {"precision": "w4a16", "layers": {"conv_in": "w8"}},
        {
            "precision": "w4a8",
            "layers": {"conv_in": "w8", "conv_out": "w4 channel", "mid_block.resnets.0.conv1": "float"},
        },
    ],
)
def test_recipes_that_executorch_has(content):
    assert ExecuTorchBackend().require_supported(Recipe.from_dict(content)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"precision": "w6a16"}, "ExecuTorch has no w6a16: choose one of w8a8, w4a8, w8a16, w4a16"),
        (
            {"precision": "w4a8", "format": "block32"},
            "ExecuTorch cannot have 'w4 block32' (w4a8): choose one of float, w8 channel, w4 channel",
        ),
        (
            {"precision": "w8a8", "layers": {"a": "float", "mid.conv": "w6"}},
            "ExecuTorch cannot have 'w6 palette' (mid.conv): choose one of float, w8 channel, w4 channel",
        ),
    ],
)
def test_what_executorch_lacks_is_refused_before_any_work(content, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        ExecuTorchBackend().require_supported(Recipe.from_dict(content))
