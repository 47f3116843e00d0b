"""Factors that float16 does not have, as products of two that it has.

x * 1.702    becomes    (x * 1.3193359375) * 1.2900390625
x / 3        becomes    (x * 0.65673828125) * 0.50732421875 or so

One float16 number is off by up to 4.9e-4, a product of two by 5e-6 at worst.
"""

from __future__ import annotations

import math

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from mobile_export.backends.coreml.attention_scale import half_factors

_MULTIPLY, _DIVIDE = torch.ops.aten.mul.Tensor, torch.ops.aten.div.Tensor


def exact_factors(program: ExportedProgram) -> None:
    """Rewrite, in place, each product and quotient of a tensor and a number that float16 does not have.

    Angles of sines and cosines, which conversion keeps in float32, are left alone.
    """
    graph = program.graph_module.graph
    angles = _angles(graph)
    for node in list(graph.nodes):
        factor = _factor(node)
        if factor is None or node in angles or float(torch.tensor(factor).half()) == factor:
            continue
        first, second = two_factors(factor)
        with graph.inserting_before(node):
            inner = graph.call_function(_MULTIPLY, (node.args[0], first))
            inner.meta = dict(node.meta)
        node.target, node.args = _MULTIPLY, (inner, second)


def two_factors(factor: float) -> tuple[float, float]:
    """Two float16 numbers with this product, but for rounding; 2^-14 to 2^15 in size."""
    fraction, exponent = math.frexp(abs(factor))
    first, second = half_factors(fraction)
    return math.copysign(math.ldexp(first, exponent), factor), second


def _angles(graph: Graph) -> set[Node]:
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        end = node.target in (torch.ops.aten.sin.default, torch.ops.aten.cos.default)
        if end or (found & node.users.keys() and node.meta["val"].dim() <= 2):
            found.add(node)
    return found


def _factor(node: Node) -> float | None:
    """What the node multiplies a floating-point tensor by, if that is a number."""
    if node.op != "call_function" or node.target not in (_MULTIPLY, _DIVIDE) or len(node.args) < 2:
        return None
    tensor, number = node.args[:2]
    if not (isinstance(tensor, Node) and isinstance(number, (int, float)) and number != 0):
        return None
    if not node.meta["val"].is_floating_point():
        return None
    return 1 / number if node.target is _DIVIDE else float(number)
