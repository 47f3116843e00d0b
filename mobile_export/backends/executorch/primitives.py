"""Primitives: operators that are one other operator by definition, written as that one, in place.

A run of decompositions traces the whole network anew; where these are all that there is to decompose, it is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.traceback import NodeSource, NodeSourceAction

aten = torch.ops.aten
Primitive = tuple[Any, tuple[Any, ...]]  # the operator and its arguments


def _pad(tensor: Node, pad: list[int], mode: str = "constant", value: float | None = None) -> Primitive | None:
    return (aten.constant_pad_nd.default, (tensor, pad, value or 0.0)) if mode == "constant" else None


def _softmax(tensor: Node, dimension: int, dtype: torch.dtype | None = None) -> Primitive | None:
    same = dtype in (None, tensor.meta["val"].dtype)
    return (aten._softmax.default, (tensor, dimension, False)) if same else None


def _narrow(tensor: Node, axis: int, first: int, count: int) -> Primitive:
    first = first if first >= 0 else first + tensor.meta["val"].shape[axis]
    return aten.slice.Tensor, (tensor, axis, first, first + count)


def _transpose(tensor: Node, first: int, second: int) -> Primitive:
    axes = [*range(tensor.meta["val"].dim())]
    axes[first], axes[second] = axes[second], axes[first]
    return aten.permute.default, (tensor, axes)


def _view(tensor: Node, shape: list[int]) -> Primitive:
    return aten.view.default, (tensor, shape)


def _reshape(tensor: Node, shape: list[int]) -> Primitive:
    """A view of the shape as it is given; where there is none of the tensor as it lies in memory, a contiguous copy and
    a view of the shape with its -1 replaced."""
    value = tensor.meta["val"]
    alike = torch.empty_strided(value.shape, value.stride(), device="meta")
    try:
        alike.view(shape)
    except RuntimeError:
        tensor = tensor.graph.call_function(aten.clone.default, (tensor,), {"memory_format": torch.contiguous_format})
        tensor.meta["val"] = value.clone(memory_format=torch.contiguous_format)
        shape = [*alike.reshape(shape).shape]
    return _view(tensor, shape)


PRIMITIVES: Mapping[Any, Callable[..., Primitive | None]] = {
    aten.pad.default: _pad,
    aten.softmax.int: _softmax,
    aten.narrow.default: _narrow,
    aten.transpose.int: _transpose,
    aten.reshape.default: _reshape,
    aten._unsafe_view.default: _view,
}


def write_primitives(graph_module: GraphModule) -> None:
    """Each of these operators as its primitive; what has another form (a mode of padding, a change of type, a shape
    that is computed) stays."""
    for node in graph_module.graph.nodes:
        if node.target not in PRIMITIVES or len(node.all_input_nodes) != 1:
            continue
        with graph_module.graph.inserting_before(node):
            primitive = PRIMITIVES[node.target](*node.args, **node.kwargs)
        if primitive is None:
            continue
        (given,) = node.all_input_nodes
        node.target, node.args = primitive
        node.kwargs = {}
        (taken,) = node.all_input_nodes
        if taken is not given:
            source = NodeSource(node, "write_primitives", NodeSourceAction.CREATE)
            taken.meta = {**node.meta, "val": taken.meta["val"], "from_node": [source]}
    graph_module.recompile()
