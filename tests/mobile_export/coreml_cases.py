"""Small networks and their packages, each made once a session, for the tests of the Core ML backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tiny
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from mobile_export.backends.backend import BackendOptions
from mobile_export.backends.coreml.backend import converted_form
from mobile_export.backends.coreml.conversion import convert
from mobile_export.backends.coreml.network import Convertible, Interface
from mobile_export.backends.coreml.package import save_package
from mobile_export.backends.coreml.parity import Case
from mobile_export.models.vae_decoder import VaeDecoder
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable, quantize_layers

METADATA = {"author": "a", "license": "l", "version": "v", "description": "d", "com.github.test.key": "value"}


def _seeded(make: Callable[[], nn.Module], seed: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _class_case(k: int) -> Case:
    t = [1.0, 401.0, 999.0, 37.5][k]
    labels = torch.tensor([k % 4], dtype=torch.int32)
    return Case({"sample": _normal(k, 1, 3, 8, 8), "timestep": torch.tensor([t]), "class_labels": labels}, t)


def _text_case(k: int) -> Case:
    t = [1.0, 401.0, 999.0, 37.5][k]
    hidden = _normal(10 + k, 1, 7, 32)
    return Case({"sample": _normal(k, 1, 4, 16, 16), "timestep": torch.tensor([t]), "encoder_hidden_states": hidden}, t)


def _latent_case(k: int) -> Case:
    return Case({"latents": _normal(k, 1, 4, 8, 8)})


def _text_unet() -> nn.Module:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=8,
    )


def _vae_decoder() -> nn.Module:
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        latent_channels=4,
    )
    return VaeDecoder(vae)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Case]]] = {
    "classes": (lambda: tiny.make_unet(1), _class_case),
    "text": (lambda: _seeded(_text_unet), _text_case),
    "vae": (lambda: _seeded(_vae_decoder), _latent_case),
}


@dataclass(frozen=True)
class Packaged:
    """A package with the network, the table and the inputs it belongs to. Copy the folder before changing it."""

    path: Path
    network: nn.Module
    table: QuantizationTable
    cases: tuple[Case, ...]
    ios: str

    @property
    def quantized(self) -> nn.Module:
        return quantized_model(self.network, self.table)


def make_package(folder: Path, network: str, recipe: Recipe, ios: str = "ios18", compute: str = "all") -> Packaged:
    """Quantize a network of NETWORKS on its own four cases, convert and save it in `folder`."""
    make, case = NETWORKS[network]
    module, cases = make(), tuple(case(k) for k in range(4))
    run = Convertible(module, tuple(cases[0].inputs))

    def observe() -> None:
        for each in cases:
            run(*each.inputs.values())

    table = quantize_layers(module, observe_layers(module, observe), recipe)
    path = folder / "unet.mlpackage"
    form = converted_form(module, table.layers, BackendOptions(ios=ios, compute=compute))
    interface = Interface(cases[0].inputs, "image" if network == "vae" else "noise_pred")
    save_package(convert(form, interface, table.layers, ios), path, METADATA)
    return Packaged(path, module, table, cases, ios)
