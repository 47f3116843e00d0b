"""Lowering: an eager network to the bytes of a `.pte`, with what was delegated and what was not."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mobile_export.backends.executorch.pool_strides import write_strides
from mobile_export.backends.executorch.shared_zeros import share_zeros
from mobile_export.backends.executorch.shortcuts import take_shortcuts
from mobile_export.backends.executorch.weight_only import partitioner
from mobile_export.memory import release_memory


@dataclass(frozen=True)
class Lowered:
    """A lowered program.

    data: the `.pte` file; delegates: how many delegate calls the method makes; undelegated:
    operator name -> how often it runs outside of them, on portable kernels.
    """

    data: bytes
    delegates: int
    undelegated: dict[str, int]


def lower(network: nn.Module, inputs: tuple[Tensor, ...], shortcuts: bool = True, into: Path | None = None) -> Lowered:
    """`network` for these input shapes, as an ExecuTorch program with everything in XNNPACK that can be.

    shortcuts: leave out what changes nothing, which takes a fraction of the time; the bytes are the same either way (a
    test compares them).
    into: a file to write instead of keeping its bytes, which are then empty in the result: one copy of all weights less
    in memory.
    """
    try:
        return _lowered(network, inputs, shortcuts, into)
    finally:
        _forget()


def _forget() -> None:
    """Let go of what was lowered, weights and all. Two caches have its graphs in their keys; graphs are cycles."""
    from executorch.exir.backend.utils import is_same_node

    FakeTensorMode.cache_clear()
    is_same_node.cache_clear()
    release_memory()


def _lowered(network: nn.Module, inputs: tuple[Tensor, ...], shortcuts: bool, into: Path | None) -> Lowered:
    from executorch.exir import to_edge_transform_and_lower

    with torch.no_grad(), _quiet(), take_shortcuts() if shortcuts else contextlib.nullcontext():
        exported = torch.export.export(network.eval(), inputs, strict=False)
        share_zeros(exported)
        write_strides(exported)
        edge = to_edge_transform_and_lower(exported, [_without_expansions], [partitioner()])
        counts = Counter(_operator_names(edge.exported_program().graph_module))
        program = edge.to_executorch()
        data = b""
        if into is None:
            data = bytes(program.buffer)
        else:
            with into.open("wb") as file:
                program.write_to_file(file)
    delegates = counts.pop("executorch_call_delegate", 0)
    return Lowered(data, delegates, dict(sorted(counts.items())))


def _without_expansions(graph_module: torch.fx.GraphModule) -> Any:
    """Without the expansions to the same shape that products of four dimensions come apart into: they would stay
    outside of the delegate, and divide it."""
    from executorch.backends.xnnpack._passes.remove_noop_expand_copy_pass import RemoveNoopExpandCopyPass

    found = any("expand_copy" in str(node.target) for node in graph_module.graph.nodes)
    return RemoveNoopExpandCopyPass()(graph_module) if found else None


def _operator_names(graph_module: torch.fx.GraphModule) -> Iterator[str]:
    for node in graph_module.graph.nodes:
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "call_function" and name not in ("getitem", "alloc"):
            yield name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.export and the delegate log every node at levels that hide real warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
