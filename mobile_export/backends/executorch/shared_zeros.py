"""share_zeros: what is made of zeros alone is computed once in a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node


def share_zeros(program: ExportedProgram) -> None:
    """Make one of all products with 0 of the same shape, and of all that is computed from them alone, in place.

    Every norm makes the weights of its averages anew, of its own input times 0 (normalization.py); there are as many
    different ones as the network has sizes of images.
    """
    graph = program.graph_module.graph
    first: dict[Any, Node] = {}
    shared: set[Node] = set()
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is torch.ops.aten.mul.Tensor and node.args[1] == 0:
            value = node.meta["val"]
            key: tuple[Any, ...] = (node.target, value.dtype, tuple(value.shape))
        elif node.all_input_nodes and shared.issuperset(node.all_input_nodes):
            key = (node.target, repr(node.args), repr(node.kwargs))
        else:
            continue
        shared.add(node)
        if first.setdefault(key, node) is not node:
            node.replace_all_uses_with(first[key])
            graph.erase_node(node)
            shared.remove(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
