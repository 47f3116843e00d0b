"""Sensitivity: what the network's output loses when one layer has fewer bits, and which layers a size budget spares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from correction.errors import UsageError
from mobile_export.quantize.recipe import LayerRecipe, Recipe
from mobile_export.quantize.table import QuantizationTable, matrix_layers

# Of graph, names and alignment, for each convolution and linear layer: no artifact of ours has had more.
OVERHEAD_BYTES = 4500


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer.

    error: energy of the change of the network's output, over the output's, when only this layer's weights are those of
    the lower bits; saved: that energy less that of the higher bits. bytes: what the higher bits cost more.
    """

    name: str
    error: float
    saved: float
    bytes: int


def layer_sensitivities(
    network: nn.Module,
    low: QuantizationTable,
    high: QuantizationTable,
    calls: Sequence[Callable[[], Tensor]],
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> list[LayerSensitivity]:
    """Of every layer that has fewer bits in `low` than in `high`, in the order of the network.

    calls: the network on inputs of its real use. Each layer in turn has its weights replaced, one at a time; all others
    stay as they are, and so do activations. The float weights are put back, whatever happens.
    """
    exact = [call() for call in calls]
    energy = sum(float(output.double().square().sum()) for output in exact)
    names = [name for name, q in low.layers.items() if q.weight.bits < high.layers[name].weight.bits]
    found = []
    for done, name in enumerate(names, start=1):
        layer = network.get_submodule(name)
        errors = []
        for table in (low, high):
            kept = layer.weight
            layer.weight = nn.Parameter(table.layers[name].weight.dequantize(), requires_grad=False)
            try:
                outputs = [call() for call in calls]
            finally:
                layer.weight = kept
            change = sum(float((a.double() - b).square().sum()) for a, b in zip(outputs, exact, strict=True))
            errors.append(change / energy)
        bits = high.layers[name].weight.stored_bits - low.layers[name].weight.stored_bits
        found.append(LayerSensitivity(name, errors[0], errors[0] - errors[1], bits // 8))
        advance(done, len(names))
    return found


def estimated_bytes(network: nn.Module, table: QuantizationTable) -> int:
    """About what an artifact takes: codes, scales and biases in 4 bytes, everything else in float32, and the graph."""
    matrices = dict(matrix_layers(network))
    total = len(matrices) * OVERHEAD_BYTES
    quantized = {id(matrices[name].weight) for name in table.layers}
    for name, layer in table.layers.items():
        total += layer.weight.stored_bits // 8 + 2 * len(matrices[name].weight)  # float32 scales, not float16
    total += 4 * sum(p.numel() for p in network.parameters() if id(p) not in quantized)
    return total


def within_budget(recipe: Recipe, sensitivities: Sequence[LayerSensitivity], spare: int, bits: int) -> Recipe:
    """The recipe with more bits for the layers where a byte saves most error, until `spare` bytes are spent.

    Greedy by error saved per byte; a layer that no longer fits is passed over for smaller ones. Raises UsageError where
    nothing is left to spend: the recipe itself does not fit.
    """
    if spare < 0:
        raise UsageError(f"the budget is {-spare:,} bytes too small for {recipe.precision.name}: nothing can be spared")
    layers: dict[str, LayerRecipe] = dict(recipe.layers)
    for each in sorted(sensitivities, key=lambda s: (-s.saved / max(s.bytes, 1), s.name)):
        if each.saved > 0 and each.bytes <= spare:
            layers[each.name] = replace(
                LayerRecipe.parse(f"w{bits}"), float_inputs=recipe.layer(each.name).float_inputs
            )
            spare -= each.bytes
    return replace(recipe, layers=layers)


def as_rows(sensitivities: Sequence[LayerSensitivity], recipe: Recipe) -> list[Mapping[str, object]]:
    """For people: the layers by what a byte saves, and what became of them."""
    ordered = sorted(sensitivities, key=lambda s: (-s.saved / max(s.bytes, 1), s.name))
    return [
        {"layer": s.name, "error": s.error, "bytes for more bits": s.bytes, "becomes": recipe.layer(s.name).name}
        for s in ordered
    ]
