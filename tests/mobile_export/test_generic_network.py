"""Networks of any kind as programs: eager values, what cannot be quantized, names of inputs, delegation."""

import re

import pytest
import torch
from channels_last_cases import lowered, quantized
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional

from correction.errors import UsageError
from mobile_export.backends.backend import Probe
from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.backends.executorch.contents import missing_constants, read_contents
from mobile_export.backends.executorch.generic_network import GenericNetwork
from mobile_export.backends.executorch.lowering import lower
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.models.component import Component, call_network
from mobile_export.models.named_unet import NamedUNet
from mobile_export.models.vae_decoder import VaeDecoder
from mobile_export.progress import Progress
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import quantize_layers


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(make) -> nn.Module:
    """In evaluation mode, its norms away from where they start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = make()
        for module in network.modules():
            if isinstance(module, (nn.GroupNorm, nn.LayerNorm)) and module.weight is not None:
                module.weight.data += 0.3 * torch.randn_like(module.weight)
                module.bias.data += 0.3 * torch.randn_like(module.bias)
    return network.eval().requires_grad_(False)


QUANTIZED = {
    "kernel of 3": (lambda: nn.Conv2d(3, 5, 3, padding=1), (1, 3, 7, 6)),
    "kernel of 2 without border or bias": (lambda: nn.Conv2d(3, 5, 2, bias=False), (1, 3, 7, 6)),
    "kernel of 5 in steps of 2": (lambda: nn.Conv2d(3, 5, 5, stride=2, padding=2), (1, 3, 7, 6)),
    "kernel of 1 in steps of 2": (lambda: nn.Conv2d(3, 5, 1, stride=2), (1, 3, 7, 6)),
    "linear of rows": (lambda: nn.Linear(5, 7), (1, 5)),
    "linear of a sequence": (lambda: nn.Linear(5, 7, bias=False), (1, 4, 5)),
    "linear of an image": (lambda: nn.Linear(5, 7), (1, 2, 3, 5)),
}
FLOAT = {
    "group norm of rows": (lambda: nn.GroupNorm(2, 6), (2, 6)),
    "group norm of a sequence": (lambda: nn.GroupNorm(3, 6, eps=0.1), (2, 6, 5)),
    "group norm of images": (lambda: nn.GroupNorm(2, 6, affine=False), (2, 6, 5, 4)),
    "layer norm": (lambda: nn.LayerNorm(6, eps=0.1), (2, 5, 6)),
    "layer norm without a gain": (lambda: nn.LayerNorm(6, elementwise_affine=False), (2, 5, 6)),
    "layer norm over two dimensions": (lambda: nn.LayerNorm((5, 6)), (2, 5, 6)),
    "twice the size": (lambda: nn.Upsample(scale_factor=2, mode="nearest"), (2, 3, 4, 5)),
    "three times the size": (lambda: nn.Upsample(scale_factor=3, mode="nearest"), (2, 3, 4, 5)),
    "twice the size, smooth": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (2, 3, 4, 5)),
    "convolution in groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding_mode="circular", padding=1), (1, 4, 5, 5)),
}


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("recipe", ["w8a8", "w4a8", "w4a16"])
def test_a_quantized_layer_computes_what_the_quantized_model_computes(name, recipe):
    make, shape = QUANTIZED[name]
    network, x = seeded(lambda: nn.Sequential(make())), image(*shape)
    table = quantized(network, {"input": x}, recipe)
    form = GenericNetwork(network, table.layers)
    torch.testing.assert_close(form(x), quantized_model(network, table)(x), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(form(x), network(x), atol=1e-3)


@pytest.mark.parametrize("name", {**QUANTIZED, **FLOAT})
def test_a_float_layer_computes_what_it_did(name):
    make, shape = {**QUANTIZED, **FLOAT}[name]
    network, x = seeded(lambda: nn.Sequential(make())), image(*shape)
    torch.testing.assert_close(GenericNetwork(network, {})(x), network(x), atol=1e-5, rtol=1e-5)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


REFUSED = {
    "a convolution with groups = 2": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "a convolution with dilation = (2, 2)": lambda: nn.Conv2d(4, 6, 3, dilation=2),
    "a convolution with kernel_size = (3, 1)": lambda: nn.Conv2d(4, 6, (3, 1)),
    "a convolution with stride = (3, 3)": lambda: nn.Conv2d(4, 6, 3, stride=3),
    "a convolution with stride = (2, 1)": lambda: nn.Conv2d(4, 6, 3, stride=(2, 1)),
    "a convolution with padding = (1, 0)": lambda: nn.Conv2d(4, 6, 3, padding=(1, 0)),
    "a convolution with padding = 'same'": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "a convolution with padding_mode = 'reflect'": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "a Doubled": lambda: Doubled(5, 5),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_quantized_layer_without_such_a_form_is_refused_by_name(why):
    network = seeded(lambda: nn.Sequential(nn.Sequential(REFUSED[why]())))
    table = quantize_layers(network, {}, Recipe.of("w8a16"))
    message = f"ExecuTorch cannot quantize 0.0, {why}: keep it in float"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        GenericNetwork(network, table.layers)
    x = image(1, 4, 9, 5)
    assert torch.equal(GenericNetwork(network, {})(x), network(x))


def test_all_tensors_are_the_networks_and_the_tables_own():
    network = seeded(lambda: nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3), nn.Embedding(4, 3)))
    table = quantize_layers(network, {}, Recipe.from_dict({"precision": "w8a16", "layers": {"0": "float"}}))
    held = {t.data_ptr() for t in GenericNetwork(network, table.layers).state_dict().values() if t.is_floating_point()}
    theirs = {t.data_ptr() for name, t in network.state_dict().items() if name not in ("2.weight", "2.bias")}
    layer = table.layers["2"]
    mean = 1  # the averaging weights of the norm
    assert len(held) == len(theirs) + 2 + mean
    assert theirs | {layer.weight.scale.data_ptr(), layer.float_bias.data_ptr()} <= held
    assert type(network[2]) is nn.Linear and set(network.state_dict()) == {
        f"{i}.{key}" for i, keys in enumerate(("weight bias",) * 3 + ("weight",)) for key in keys.split()
    }


class Conditioned(nn.Module):
    """Takes its conditions in another order than a component gives them, and gives what `result` says."""

    def __init__(self, result: str = "tensor") -> None:
        super().__init__()
        self.mix = nn.Linear(3, 3)
        self.result = result

    def forward(self, sample, timestep, shift=None, factor=None, return_dict=True):
        y = self.mix(sample) * factor + shift / timestep
        if self.result == "dict":
            return {"sample": y} if return_dict else (y,)
        return (y, None) if self.result == "tuple" else y


CONDITIONS = {"sample": image(1, 3), "timestep": torch.ones(1), "factor": torch.full((1,), 5.0), "shift": image(1, 3)}


@pytest.mark.parametrize("result", ["tensor", "tuple", "dict"])
def test_inputs_come_in_the_order_of_the_names(result):
    network = seeded(lambda: Conditioned(result))
    form = GenericNetwork(network, {}, tuple(CONDITIONS))
    expected = seeded(Conditioned)(**CONDITIONS)
    torch.testing.assert_close(form(*CONDITIONS.values()), expected)
    own = GenericNetwork(network, {})
    torch.testing.assert_close(own(*(CONDITIONS[n] for n in ("sample", "timestep", "shift", "factor"))), expected)


def test_a_network_that_takes_conditions_by_any_name():
    network = NamedUNet(seeded(Conditioned))
    form = GenericNetwork(network, {}, tuple(CONDITIONS))
    torch.testing.assert_close(form(*CONDITIONS.values()), network(**CONDITIONS))


class Own(nn.Module):
    """A UNet of nobody's library: two scales, a norm, a time embedding from numbers that the graph makes."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(8, 8)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up = nn.Upsample(scale_factor=2)
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, sample, timestep):
        angles = timestep[:, None] * torch.exp(-torch.arange(4.0))
        time = functional.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)))[:, :, None, None]
        fine = functional.silu(self.norm(self.first(sample)))
        coarse = functional.silu(self.down(fine) + time)
        return self.last(torch.cat([fine, self.up(coarse)], 1))


def test_a_unet_of_ones_own_is_exported_and_compared_in_lock_step(tmp_path):
    network = seeded(Own)
    inputs = {"sample": image(1, 3, 8, 8), "timestep": torch.full((1,), 37.0)}
    component = Component("unet", network, inputs, "noise_pred")
    table = quantized(network, inputs, "w8a8")
    backend, path = ExecuTorchBackend(), tmp_path / "unet.pte"
    exported = backend.export(component, table, path, Progress())
    probes = [
        Probe({"sample": image(1, 3, 8, 8, seed=k).numpy(), "timestep": inputs["timestep"].numpy()}, 37.0)
        for k in (1, 2)
    ]
    parity = backend.check_parity(component, table, path, exported, probes)
    assert (parity.layers, parity.quantizations) == (4, 8)
    assert parity.worst_code_step <= 1 and parity.lockstep_output_error <= 1e-5
    description = backend.describe(path)
    assert (description.delegates, description.undelegated) == (1, {"aten::arange": 1})


# Its arithmetic has four whole numbers, x / 3, 3 x, 2 x and x - 1, which a copy makes floating point.
WHOLE_NUMBERS = {"dim_order_ops._to_dim_order_copy.default": 4}


def test_a_tiny_autoencoder_is_one_delegate():
    sizes = {"decoder_block_out_channels": (8, 8), "encoder_block_out_channels": (8, 8)}
    sizes |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), "latent_channels": 4}
    network, inputs = seeded(lambda: VaeDecoder(AutoencoderTiny(**sizes))), {"latents": image(1, 4, 4, 6)}
    program, difference = lowered(network, inputs)
    assert difference <= 1e-5
    assert (program.delegates, program.undelegated) == (1, WHOLE_NUMBERS)
    table = quantize_layers(network, {}, Recipe.of("w4a16"))
    coded = lower(GenericNetwork(network, table.layers), tuple(inputs.values()))
    assert (coded.delegates, coded.undelegated) == (1, WHOLE_NUMBERS)
    assert missing_constants(read_contents(coded.data, "tiny"), table) == []
    expected = call_network(quantized_model(network, table), inputs)
    (ours,) = LoadedProgram(coded.data, "tiny")(*inputs.values())
    assert float((ours - expected).norm() / expected.norm()) <= 1e-5
