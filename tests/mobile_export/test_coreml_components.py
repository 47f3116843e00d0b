"""Text encoders, autoencoders and UNets of all kinds as packages: our codes, parity, and the traps of float16."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from channels_last_cases import rounded_layers
from component_cases import COMPONENTS, OTHERS, TEXT, UNETS, normal
from coreml_cases import METADATA
from diffusers.models.autoencoders.vae import VectorQuantizer
from torch import Tensor, nn

from correction.errors import CheckFailed
from mobile_export.backends.backend import BackendOptions, Parity
from mobile_export.backends.coreml import conversion
from mobile_export.backends.coreml.backend import converted_form, float_outputs
from mobile_export.backends.coreml.network import Interface
from mobile_export.backends.coreml.package import save_package
from mobile_export.backends.coreml.parity import Case, check_package
from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.simulator import Simulator
from mobile_export.models.component import call_network
from mobile_export.models.vae_decoder import Codebook
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable, matrix_layers, quantize_layers

FLOAT16 = "float16"  # no codes at all


@dataclass(frozen=True)
class Packaged:
    """A package and what it was made from; inputs: as the package takes them."""

    path: Path
    network: nn.Module
    table: QuantizationTable
    inputs: list[dict[str, Tensor]]
    output: str
    ios: str

    def check(self) -> Parity:
        """The gates that an export has to pass."""
        cases = [Case(inputs) for inputs in self.inputs]
        return check_package(self.path, quantized_model(self.network, self.table), self.table.layers, cases, self.ios)

    def run(self, inputs: dict[str, Tensor]) -> Tensor:
        """In the arithmetic that the package declares."""
        return Simulator(read_package(self.path).program(), "declared")(inputs)[self.output]


def packaged(folder: Path, network: nn.Module, examples: list, output: str, recipe: str, ios: str) -> Packaged:
    inputs = [{n: t.int() if t.dtype == torch.int64 else t for n, t in each.items()} for each in examples]
    table = QuantizationTable(Recipe.of("w8a16"), {})
    if recipe != FLOAT16:
        asked = Recipe.of(*recipe.split())

        def run() -> None:
            for each in inputs:
                call_network(network, each)

        table = float_outputs(quantize_layers(network, observe_layers(network, run, asked), asked))
    form = converted_form(network, table.layers, BackendOptions(ios=ios))
    path = folder / "component.mlpackage"
    save_package(conversion.convert(form, Interface(inputs[0], output), table.layers, ios), path, METADATA)
    return Packaged(path, network, table, inputs, output, ios)


def component(folder: Path, name: str, recipe: str = FLOAT16, ios: str = "ios18") -> Packaged:
    case = COMPONENTS[name]
    return packaged(folder, case.network(), [case.inputs(k) for k in range(4)], case.output, recipe, ios)


CASES = [(name, recipe, "ios18") for name in OTHERS for recipe in (FLOAT16, "w8a16", "w4a16 palette")]
CASES += [(name, "w8a16", "ios17") for name in OTHERS]
CASES += [(name, "w8a8", "ios18") for name in UNETS] + [("UNet of a consistency model", "w4a16 palette", "ios17")]


@pytest.mark.parametrize(("name", "recipe", "ios"), CASES)
def test_every_component_is_a_package_that_follows_its_network(tmp_path, name, recipe, ios):
    package = component(tmp_path, name, recipe, ios)
    parity = package.check()
    weights = {layer for layer, _ in matrix_layers(package.network)}
    kept = {"conv_in", "conv_out"} if name in UNETS else set()
    assert package.table.layers.keys() == (set() if recipe == FLOAT16 else weights - kept)
    assert parity.quantizations == (len(rounded_layers(package.table)) if recipe == "w8a8" else 0)

    stored, example = read_package(package.path), package.inputs[0]
    types = {torch.float32: "float32", torch.int32: "int32"}
    expected = {key: f"{types[value.dtype]}{list(value.shape)}" for key, value in example.items()}
    assert {key: str(value) for key, value in stored.inputs.items()} == expected
    result = call_network(package.network, COMPONENTS[name].inputs(0))
    assert {key: str(value) for key, value in stored.outputs.items()} == {
        package.output: f"float32{list(result.shape)}"
    }
    if recipe == FLOAT16:  # nothing but float16 between the package and the float32 network
        assert (package.run(example) - result).norm() <= 5e-3 * result.norm()


# text encoders


def test_a_token_changes_no_embedding_before_it(tmp_path):
    package = component(tmp_path, "text encoder")
    ids = package.inputs[0]["input_ids"]
    changed = ids.clone()
    changed[0, 5] += 1
    before, after = package.run({"input_ids": ids}), package.run({"input_ids": changed})
    assert torch.equal(before[:, :5], after[:, :5])
    assert ((before - after)[:, 5:].abs().amax(-1) > 1e-3).all()


def test_the_embeddings_of_tokens_are_float16_and_the_largest_part(tmp_path):
    package = component(tmp_path, "text encoder", "w8a16")
    sizes = read_package(package.path).sizes
    codes = sum(layer.weight.codes.numel() for layer in package.table.layers.values())
    table = 2 * TEXT["vocab_size"] * TEXT["hidden_size"]
    weights = next(size for name, size in sizes.items() if name.endswith("weight.bin"))
    assert table + codes < weights < table + codes + 20_000  # norms, biases, scales, positions, and what aligns them


# codebooks


def crowded_codebook() -> tuple[nn.Module, Tensor]:
    """A codebook of pairs of codes that differ by 0.1 %, and latents (1, 2, 8, 8) nearer to one of each pair."""
    quantizer = VectorQuantizer(64, 2, beta=0.25, legacy=False)
    codes = normal(0, 32, 2)
    quantizer.embedding.weight.data = torch.cat([codes, codes * 1.001]).half().float()
    chosen = torch.randint(64, (64,), generator=torch.Generator().manual_seed(1))
    latents = quantizer.embedding.weight.data[chosen].T.reshape(1, 2, 8, 8)
    return Codebook(quantizer).eval().requires_grad_(False), latents.contiguous()


def test_the_nearest_code_is_that_of_float32(tmp_path, monkeypatch):
    codebook, latents = crowded_codebook()
    package = packaged(tmp_path, codebook, [{"latents": latents}], "codes", FLOAT16, "ios18")
    assert torch.equal(package.run({"latents": latents}), codebook(latents))
    monkeypatch.setattr(conversion, "_EXACT_ENDS", {})
    rounded = packaged(tmp_path, codebook, [{"latents": latents}], "codes", FLOAT16, "ios18")
    assert not torch.equal(rounded.run({"latents": latents}), codebook(latents))


def test_a_codebook_chooses_among_the_codes_that_it_gives(tmp_path):
    codebook, _ = crowded_codebook()
    codebook.embedding.weight.data = normal(0, 256, 2)  # which float16 does not have
    latents = normal(1, 1, 2, 64, 64)  # so many that some are nearest to another code once the codes are rounded
    package = packaged(tmp_path, codebook, [{"latents": latents}], "codes", FLOAT16, "ios18")
    chosen = codebook(latents).half().float()
    codebook.embedding.weight.data = codebook.embedding.weight.half().float()
    assert not torch.equal(chosen, codebook(latents))
    assert torch.equal(package.run({"latents": latents}), codebook(latents))


# range


def test_a_decoder_whose_values_float16_cannot_hold_is_refused_by_layer(tmp_path):
    case = COMPONENTS["KL decoder"]
    network = case.network()
    network.decoder.conv_in.weight.data *= 1e6
    network.decoder.conv_in.bias.data *= 1e6
    package = packaged(tmp_path, network, [case.inputs(0)], "image", "w8a16", "ios18")
    with pytest.raises(CheckFailed, match=r"do not fit into float16 .* after layer decoder\.conv_in, reaches"):
        package.check()
