"""What every channels-last form has to be: the network itself, in float32, in low bits and lowered."""

from __future__ import annotations

from collections.abc import Mapping
from unittest import mock

import torch
from torch import Tensor, nn

from mobile_export.backends.executorch.dynamic_layers import RowQuantize
from mobile_export.backends.executorch.lockstep import TappedNetwork, channels_first, point_shapes
from mobile_export.backends.executorch.lowering import Lowered, lower
from mobile_export.backends.executorch.network import network_for
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.backends.executorch.support import activations_of
from mobile_export.backends.lockstep import Lockstep, follow
from mobile_export.models.component import call_network
from mobile_export.quantize.dynamic_quantize import DynamicQuantize
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable, quantize_layers

MATRICES = (nn.Conv2d, nn.Linear)
WITH_WEIGHTS = (*MATRICES, nn.GroupNorm, nn.LayerNorm, nn.Embedding)

ENDS = {"dynamic": 1, "static": 2}  # at how many ends of a layer its activations are rounded

Inputs = Mapping[str, Tensor]


def rounded_layers(table: QuantizationTable) -> list[str]:
    """The layers whose inputs are rounded: all but the shortcuts."""
    return [name for name in table.layers if not name.endswith("conv_shortcut")]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest absolute difference, in units of the largest value where that is above 1."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    return float((ours - theirs).abs().max()) / max(1.0, float(theirs.abs().max()))


@torch.no_grad()
def eager_difference(network: nn.Module, inputs: Inputs) -> float:
    """Of the channels-last form and the network, in float32."""
    return difference(network_for(network, {})(*inputs.values()), call_network(network, inputs))


@torch.no_grad()
def unused_layers(network: nn.Module, inputs: Inputs) -> list[str]:
    """Names of layers whose weights the form does not take from the network, or the network does not use."""
    before, found = call_network(network, inputs), []
    for name, module in network.named_modules():
        if not isinstance(module, WITH_WEIGHTS):
            continue
        weight = module.weight.data.clone()
        module.weight.data *= 0.5
        after = call_network(network, inputs)
        if difference(after, before) <= 1e-5 or eager_difference(network, inputs) > 1e-5:
            found.append(name)
        module.weight.data.copy_(weight)
    return found


def quantized(
    network: nn.Module, inputs: Inputs, recipe: str | Recipe = "w8a8", activations: str = "static"
) -> QuantizationTable:
    seen = observe_layers(network, lambda: call_network(network, inputs))
    wanted = recipe if isinstance(recipe, Recipe) else Recipe.of(recipe, activations=activations)
    return quantize_layers(network, seen, wanted)


@torch.no_grad()
def eager_lockstep(
    network: nn.Module, inputs: Inputs, recipe: str | Recipe = "w4a8", activations: str = "static"
) -> tuple[Lockstep, QuantizationTable]:
    """The form in low bits, in eager PyTorch, against the quantized model.

    Rows are rounded as the runtime does: PyTorch's own operations differ from it in the last bit of a scale, so that a
    code at a tie goes the other way, and the residual stream, which is not rounded, carries that to the output.
    """
    table = activations_of(quantized(network, inputs, recipe, activations))
    twin, tapped = quantized_model(network, table), TappedNetwork(network_for(network, table.layers).eval())
    with mock.patch.object(RowQuantize, "forward", DynamicQuantize.forward):
        output, *taps = tapped(*inputs.values())

    def run() -> Tensor:
        return call_network(twin, inputs)

    values = channels_first(dict(zip(tapped.points, taps, strict=True)), point_shapes(twin, run))
    return follow(twin, run, output, values), table


@torch.no_grad()
def lowered(network: nn.Module, inputs: Inputs) -> tuple[Lowered, float]:
    """The float32 form as a program, and its difference from the network on other inputs of the same shapes."""
    program = lower(network_for(network, {}).eval(), tuple(inputs.values()))
    other = {name: value.flip(-1) for name, value in inputs.items()}
    (ours,) = LoadedProgram(program.data, "a float program")(*other.values())
    return program, difference(ours, call_network(network, other))
