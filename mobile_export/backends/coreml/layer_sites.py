"""LayerSite: where a quantized layer is in a saved program.

quantize -> dequantize -> conv or linear -> (mul by a scale, add of a bias) -> quantize -> dequantize
                              ^ constexpr codes
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass

from correction.errors import CheckFailed
from mobile_export.backends.coreml.weight_codes import codes_name
from mobile_export.coreml_simulator.program import Operation, Program


@dataclass(frozen=True)
class LayerSite:
    """The operations of one layer: `codes` is its constexpr, `scale` the multiplication after `product`, if any,
    `quantize_in` and `quantize_out` those of its activation grids, if any."""

    codes: Operation
    product: Operation
    scale: Operation | None
    quantize_in: Operation | None
    quantize_out: Operation | None


class Graph:
    """Who makes and who uses each value of a program."""

    def __init__(self, program: Program) -> None:
        self.maker = {value.name: op for op in program.operations for value in op.outputs}
        self.users: dict[str, list[Operation]] = defaultdict(list)
        for op in program.operations:
            for names in op.inputs.values():
                for name in names:
                    self.users[name].append(op)

    def only_user(self, op: Operation, kind: str) -> Operation | None:
        """The one operation that uses the result of `op`, if it is of that kind."""
        users = self.users[op.outputs[0].name]
        return users[0] if len(users) == 1 and users[0].type == kind else None


def layer_before(program: Program, layers: Collection[str], value: str) -> str | None:
    """Full name of the quantized layer that `value` was computed from most directly, for messages; None if none is."""
    graph, codes = Graph(program), {codes_name(layer): layer for layer in layers}
    seen, waiting = {value}, deque([value])
    while waiting:
        op = graph.maker.get(waiting.popleft())
        if op is None:
            continue
        if op.outputs[0].name in codes:
            return codes[op.outputs[0].name]
        for names in op.inputs.values():
            waiting.extend(name for name in names if name not in seen)
            seen.update(names)
    return None


def layer_sites(program: Program, layers: Collection[str]) -> dict[str, LayerSite]:
    """By full layer name. Raises CheckFailed when the codes of a layer are not there, or not used by one product."""
    graph = Graph(program)
    sites = {}
    for layer in layers:
        codes = graph.maker.get(codes_name(layer))
        if codes is None or not codes.type.startswith("constexpr_"):
            raise CheckFailed(f"the program holds no codes of {layer}")
        users = graph.users[codes.outputs[0].name]
        if len(users) != 1 or users[0].type not in ("conv", "linear"):
            raise CheckFailed(f"the codes of {layer} are used by {[op.type for op in users]}, not by one product")
        sites[layer] = _site(graph, codes, users[0])
    return sites


def _site(graph: Graph, codes: Operation, product: Operation) -> LayerSite:
    source = graph.maker.get(product.inputs["x"][0])
    quantize_in = None
    if source is not None and source.type == "dequantize":
        quantize_in = graph.maker.get(source.inputs["input"][0])
    last, scale = product, None
    if product.outputs[0].name.endswith("_unscaled"):
        scale = graph.only_user(product, "mul")
        last = scale or product
        if scale is not None and scale.outputs[0].name.endswith("_scaled"):
            last = graph.only_user(scale, "add") or scale
    quantize_out = graph.only_user(last, "quantize")
    return LayerSite(codes, product, scale, quantize_in, quantize_out)
