"""write_strides: poolings that leave their stride out get it written down."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule


def write_strides(program: ExportedProgram) -> None:
    """Give each `max_pool2d` without a stride the one that it means, its window's size, in place.

    The partitioner of the pinned executorch reads two numbers of a stride without looking whether they are there, and
    `torch.nn.functional.max_pool2d(x, 2)` has none.
    """
    for module in program.graph_module.modules():
        if not isinstance(module, GraphModule):
            continue
        for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.max_pool2d.default):
            image, window, *rest = node.args
            if not (rest[0] if rest else node.kwargs.get("stride")):
                node.args = (image, window, window, *rest[1:])
        module.recompile()
