"""Packages of tiny networks in every precision: stored codes, interface, arithmetic, and what must be noticed."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from coreml_cases import Packaged, make_package
from coremltools.converters.mil.mil import Program

from correction.errors import CheckFailed, UsageError
from mobile_export.backends.coreml import conversion
from mobile_export.backends.coreml.layer_sites import layer_before
from mobile_export.backends.coreml.parity import LIMITS, Case, check_arithmetic, check_package
from mobile_export.backends.coreml.stored_codes import compare_codes
from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.simulator import Simulator
from mobile_export.quantize.recipe import LayerRecipe, Recipe

MIXED = Recipe.from_dict(
    {
        "precision": "w4a16",
        "layers": {
            "down_blocks.0.resnets.0.conv1": "w8 channel",
            "down_blocks.0.resnets.0.conv2": "w2 palette",
            "mid_block.resnets.0.conv1": "w6 palette8",
            "mid_block.resnets.1.conv2": "w3 palette4",
            "up_blocks.0.resnets.0.conv1": "float",
            "down_blocks.1.attentions.0.to_q": "w1 palette",
            "down_blocks.1.attentions.0.to_k": "w4 block8",
            "conv_in": "w8",
        },
    }
)
FLOAT_INPUTS = Recipe.from_dict(
    {
        "precision": "w4a8",
        "layers": {"up_blocks.0.resnets.0.conv2": "w8a16", "mid_block.resnets.0.conv1": "w4a16"},
    }
)
RECIPES = {
    **{name: Recipe.of(name) for name in ("w8a8", "w4a8", "w8a16", "w6a16", "w4a16", "w3a16", "w2a16", "w1a16")},
    "w4a8 palette8": Recipe.of("w4a8", "palette8"),
    "w4a16 block8": Recipe.of("w4a16", "block8"),
    "w4a16 palette8": Recipe.of("w4a16", "palette8"),
    "w6a16 channel": Recipe.of("w6a16", "channel"),
    "mixed": MIXED,
    "float inputs": FLOAT_INPUTS,
}
IOS17 = {
    **{name: Recipe.of(name) for name in ("w8a8", "w4a8", "w8a16", "w4a16")},
    **{f"w{bits}a16 palette": Recipe.of(f"w{bits}a16", "palette") for bits in (1, 2, 4, 6)},
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict[tuple, Packaged]:
    made: dict[tuple, Packaged] = {}

    def get(network: str, recipe: Recipe, ios: str = "ios18", compute: str = "all") -> Packaged:
        key = (network, str(recipe.as_dict()), ios, compute)
        if key not in made:
            made[key] = make_package(tmp_path_factory.mktemp("package"), network, recipe, ios, compute)
        return made[key]

    return get


def check(package: Packaged, path: Path | None = None):
    return check_package(path or package.path, package.quantized, package.table.layers, package.cases, package.ios)


@pytest.mark.parametrize("name", RECIPES)
def test_every_precision_keeps_our_codes_and_follows_the_quantized_model(packages, name):
    package = packages("classes", RECIPES[name])
    codes = compare_codes(read_package(package.path).program(), package.table.layers, "ios18")
    weights = sum(package.network.get_submodule(layer).weight.numel() for layer in package.table.layers)
    assert codes.wrong == () and codes.equal == codes.total == weights
    parity = check(package)
    assert parity.output_max_abs <= 1e-5 and parity.declared_error <= 3e-3
    if package.table.precision.weight_only:
        assert parity.quantizations == parity.activation_codes_compared == 0
    else:
        rounded = [layer for layer in package.table.layers.values() if layer.input is not None]
        assert parity.quantizations == 2 * len(rounded) < 2 * len(package.table.layers)
        assert parity.activation_codes_compared > 10_000 and parity.worst_code_step <= 1
        assert round(parity.flip_rate * parity.activation_codes_compared) <= 1  # a value at a tie


@pytest.mark.parametrize("network", ["text", "vae"])
@pytest.mark.parametrize("recipe", ["w8a8", "w4a8", "w4a16", "w2a16"])
def test_networks_with_cross_attention_and_decoders_pass_the_same_gates(packages, network, recipe):
    package = packages(network, Recipe.of(recipe))
    assert check(package).layers == len(package.table.layers) > 20


@pytest.mark.parametrize("network", ["classes", "text", "vae"])
@pytest.mark.parametrize("recipe", ["w4a8", "w4a16 palette8"])
def test_the_form_for_the_neural_engine_computes_the_same(packages, network, recipe):
    package = packages(network, Recipe.of(*recipe.split()), compute="ane")
    parity = check(package)
    assert parity.layers == len(package.table.layers)
    types = Counter(op.type for op in read_package(package.path).program().operations)
    assert types["linear"] == types["matmul"] == types["scaled_dot_product_attention"] == 0
    assert types["einsum"] >= 2


@pytest.mark.parametrize("name", IOS17)
def test_ios17_and_ios18_carry_the_same_codes_and_agree_to_float_noise(packages, name):
    old, new = (packages("classes", IOS17[name], ios) for ios in ("ios17", "ios18"))
    for package in (old, new):
        assert compare_codes(read_package(package.path).program(), package.table.layers, package.ios).wrong == ()
        check(package)
    for layer, quantization in old.table.layers.items():
        for key, tensor in quantization.weight.tensors.items():
            assert torch.equal(tensor, new.table.layers[layer].weight.tensors[key])
    if old.table.precision.weight_only:
        for case in old.cases:
            outputs = [Simulator(read_package(p.path).program(), "float32")(case.inputs) for p in (old, new)]
            assert (outputs[0]["noise_pred"] - outputs[1]["noise_pred"]).abs().max() <= 1e-5


def test_the_package_says_what_it_takes_and_what_it_is(packages):
    package = read_package(packages("classes", RECIPES["w8a8"]).path)
    assert {name: str(kind) for name, kind in package.inputs.items()} == {
        "sample": "float32[1, 3, 8, 8]",
        "timestep": "float32[1]",
        "class_labels": "int32[1]",
    }
    assert {name: str(kind) for name, kind in package.outputs.items()} == {"noise_pred": "float32[1, 3, 8, 8]"}
    assert package.specification_version == 9
    metadata = package.metadata
    assert (metadata.author, metadata.license, metadata.version) == ("a", "l", "v")
    assert metadata.short_description == "d" and metadata.user_defined["com.github.test.key"] == "value"
    assert set(package.sizes) == {
        "Manifest.json",
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
    }


def test_inputs_of_the_text_network_have_their_names(packages):
    package = read_package(packages("text", Recipe.of("w8a8")).path)
    assert list(package.inputs) == ["sample", "timestep", "encoder_hidden_states"]


def test_the_same_network_gives_the_same_bytes(packages, tmp_path, monkeypatch):
    """Also where the converter checks the whole program around each of its passes."""
    first = packages("classes", RECIPES["w4a8"]).path
    monkeypatch.setattr(conversion, "_checked_at_the_ends", contextlib.nullcontext)
    second = make_package(tmp_path, "classes", RECIPES["w4a8"]).path
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(files) == 3
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_program_is_checked_at_the_ends_and_the_check_is_put_back(tmp_path, monkeypatch):
    checked, check = [], Program.validate
    monkeypatch.setattr(
        Program, "validate", lambda self, *rest: checked.append(len(self.functions)) or check(self, *rest)
    )
    counting = Program.validate
    make_package(tmp_path, "classes", RECIPES["w4a8"])
    assert 2 <= len(checked) <= 20  # of some hundred
    assert Program.validate is counting
    monkeypatch.setattr(conversion, "put_codes", None)
    with pytest.raises(TypeError, match="NoneType"):
        make_package(tmp_path / "again", "classes", RECIPES["w4a8"])
    assert Program.validate is counting


def test_no_float_weight_is_left_where_a_layer_is_quantized(packages):
    package = packages("classes", RECIPES["w4a8"])
    program = read_package(package.path).program()
    types = Counter(op.type for op in program.operations)
    assert types["constexpr_blockwise_shift_scale"] == len(package.table.layers)
    stored = Counter()
    for constant in program.constants.values():
        if constant.type is not None and len(constant.type.shape) > 1:
            stored[constant.type.element.name] += constant.value.numel()
    codes = sum(layer.weight.codes.numel() for layer in package.table.layers.values())
    assert stored["int4"] + stored["int8"] == codes
    kept = sum(package.network.get_submodule(name).weight.numel() for name in ("conv_in", "conv_out"))
    scales = sum(layer.weight.scale.numel() for layer in package.table.layers.values())
    norms = sum(p.numel() for n, p in package.network.named_parameters() if "norm" in n)
    assert stored["float16"] == kept + package.network.class_embedding.weight.numel() + scales + norms
    assert stored["float32"] == package.network.time_proj.num_channels // 2


# What must be noticed ------------------------------------------------------------------------------------------------


def changed(package: Packaged, folder: Path) -> Path:
    return Path(shutil.copytree(package.path, folder / "changed.mlpackage"))


def find(data: bytes, pattern: bytes) -> int:
    assert data.count(pattern) == 1
    return data.index(pattern)


def nibbles(codes: torch.Tensor) -> bytes:
    flat = codes.flatten().numpy().astype(np.uint8) & 15
    return (flat[::2] | flat[1::2] << 4).tobytes()


LAYER = "down_blocks.1.resnets.0.conv2"


def test_one_flipped_bit_of_a_code_is_seen_by_the_codes_and_by_the_arithmetic(packages, tmp_path):
    package = packages("classes", RECIPES["w4a16"])
    path = changed(package, tmp_path)
    file = path / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(file.read_bytes())
    data[find(bytes(data), nibbles(package.table.layers[LAYER].weight.codes)) + 5] ^= 4
    file.write_bytes(data)
    program = read_package(path).program()
    codes = compare_codes(program, package.table.layers, "ios18")
    assert codes.wrong == (f"{LAYER}.codes",) and codes.equal == codes.total - 1
    with pytest.raises(CheckFailed, match=rf"{LAYER}.codes"):
        check(package, path)
    parity = check_arithmetic(program, package.quantized, package.table.layers, package.cases)
    with pytest.raises(CheckFailed, match="conversion parity"):
        parity.require()
    assert parity.output_max_abs > 10 * LIMITS["output_max_abs"]


def test_a_wrong_entry_of_a_palette_is_seen_by_the_codes_and_by_the_arithmetic(packages, tmp_path):
    package = packages("classes", RECIPES["w4a16 palette8"])
    path = changed(package, tmp_path)
    file = path / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(file.read_bytes())
    palette = package.table.layers[LAYER].weight.palette.numpy().astype(np.float16)
    start = find(bytes(data), palette.tobytes())
    data[start : start + 2] = palette.flatten()[3:4].tobytes()  # index 0 now looks up entry 3
    file.write_bytes(data)
    program = read_package(path).program()
    codes = compare_codes(program, package.table.layers, "ios18")
    assert codes.wrong == (f"{LAYER}.palette",) and codes.equal == codes.total
    assert check_arithmetic(program, package.quantized, package.table.layers, package.cases).output_max_abs > 1e-4


def test_two_swapped_scales_are_seen_by_the_codes_and_by_the_arithmetic(packages, tmp_path):
    package = packages("classes", RECIPES["w8a8"])
    path = changed(package, tmp_path)
    file = path / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(file.read_bytes())
    scale = package.table.layers[LAYER].weight.scale.numpy().astype(np.float16)
    start = find(bytes(data), scale.tobytes())
    low, high = int(scale.argmin()), int(scale.argmax())
    scale[[low, high]] = scale[[high, low]]
    data[start : start + 2 * len(scale)] = scale.tobytes()
    file.write_bytes(data)
    program = read_package(path).program()
    assert compare_codes(program, package.table.layers, "ios18").wrong == (f"{LAYER}.scale",)
    with pytest.raises(CheckFailed, match=r"conversion parity: (largest code step|flip rate)"):
        check_arithmetic(program, package.quantized, package.table.layers, package.cases).require()


def test_another_activation_grid_is_seen(packages):
    package, other = packages("classes", RECIPES["w8a8"]), packages("classes", RECIPES["w4a8"])
    layers = dict(package.table.layers)
    old = layers[LAYER]
    layers[LAYER] = type(old)(old.weight, old.float_bias, other.table.layers[LAYER].output, old.output)
    wrong = compare_codes(read_package(package.path).program(), layers, "ios18").wrong
    assert wrong == (f"{LAYER}.input",)


def test_a_layer_that_the_package_does_not_hold_is_named(packages):
    package = packages("classes", RECIPES["mixed"])
    layers = {**package.table.layers, "up_blocks.0.resnets.0.conv1": package.table.layers[LAYER]}
    with pytest.raises(CheckFailed, match=r"no codes of up_blocks\.0\.resnets\.0\.conv1"):
        compare_codes(read_package(package.path).program(), layers, "ios18")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe.of("w3a16", "palette"), "iOS 17 has palettes of 1, 2, 4, 6, 8 bits, not 3"),
        (Recipe.of("w4a16", "block8"), "no scale per block"),
        (Recipe.of("w2a16", "palette4"), "iOS 17 has one palette for a whole layer"),
    ],
)
def test_what_ios17_has_no_form_for_is_an_error_that_names_the_layer_and_the_choice(tmp_path, recipe, message):
    with pytest.raises(UsageError, match=message):
        make_package(tmp_path, "classes", recipe, "ios17")


def test_recipes_of_single_layers_are_what_the_package_stores(packages):
    package = packages("classes", MIXED)
    for layer, wanted in MIXED.layers.items():
        if wanted == LayerRecipe(None, None):
            assert layer not in package.table.layers
        else:
            assert package.table.layers[layer].weight.bits == wanted.bits


def test_a_value_that_float16_cannot_hold_is_named_with_its_layer(packages):
    package = packages("classes", RECIPES["w8a16"])
    case = package.cases[1]
    huge = Case({**case.inputs, "sample": 1e6 * case.inputs["sample"]})
    with pytest.raises(CheckFailed, match=r"do not fit into float16 \(largest 65504\): cast .*reaches [1-9.e+]+0\d;"):
        check_package(package.path, package.quantized, package.table.layers, [huge], "ios18")
    program = read_package(package.path).program()
    assert layer_before(program, package.table.layers, program.outputs[0]) == "up_blocks.1.resnets.1.conv_shortcut"
    assert layer_before(program, package.table.layers, "timestep") is None
