"""Lowering: an eager network to the bytes of a `.pte`, with what was delegated and what was not."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import logging
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram

from mobile_export.backends.executorch.dependencies import Dependencies
from mobile_export.backends.executorch.shared_zeros import share_zeros
from mobile_export.backends.executorch.weight_only import partitioner
from mobile_export.memory import release_memory

# Passes of the XNNPACK delegate that do nothing unless one of these operators is in the graph.
# Every pass traces the whole graph anew, which is most of the time of lowering a UNet.
_PASS_NEEDS = {
    "ConvertToUpsampleBilinear2d": ("upsample", "index", "arange"),
    "ConvertToSDPAPass": ("scaled_dot_product",),
    "FuseBatchNormPass": ("batch_norm",),
    "DecomposeBatchNorm": ("batch_norm",),
    "FuseActivationPass": ("relu", "hardtanh", "clamp"),
    "RemoveGetItemPass": ("max_pool", "batch_norm", "getitem"),
    "Conv1dUnsqueezePass": ("convolution",),
    "PReLUReshapePass": ("prelu",),
    "ChannelsLastTaggedReshapePass": ("convolution", "conv2d", "pool", "upsample", "prelu", "mean"),
    "RemoveRedundantCopyPass": ("_to_copy", "_to_dim_order_copy"),
    "PropagateCustomMetaPass": (),
}


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

    shortcuts: skip delegate passes that have nothing to do in this graph, share provenance records and tensors instead
    of copying them, keep dependencies as bits, search what is new alone for garbage; the bytes are the same either way
    (a test compares them).
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

    with torch.no_grad(), _quiet(), _fast() if shortcuts else contextlib.nullcontext():
        exported = torch.export.export(network.eval(), inputs, strict=False)
        share_zeros(exported)
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


@contextlib.contextmanager
def _fast() -> Iterator[None]:
    """See `lower`; patches module attributes of the pinned executorch and torch, and restores them."""
    import executorch.backends.xnnpack._passes as passes
    import executorch.exir.backend.backend_api as backend_api
    import executorch.exir.backend.canonical_partitioners.group_partitioner as group_partitioner
    import torch._export.utils as export_operators
    import torch.fx.passes.infra.partitioner as partitioner
    import torch.fx.traceback as traceback

    transform, collecting = passes._transform, gc.isenabled()

    def transform_if_needed(program: Any, *pass_list: Any, **options: Any) -> Any:
        needs = [_PASS_NEEDS.get(type(p).__name__) for p in pass_list]
        if all(n is not None for n in needs):
            targets = " ".join(
                str(node.target) for node in program.graph_module.graph.nodes if node.op == "call_function"
            )
            if not any(word in targets for n in needs for word in n or ()):
                return program
        gc.collect()
        return transform(program, *pass_list, **options)

    register_once = functools.cache(export_operators._materialize_cpp_cia_ops)
    patches: list[tuple[Any, str, Any]] = [
        (passes, "_transform", transform_if_needed),
        (traceback, "copy", types.SimpleNamespace(copy=copy.copy, deepcopy=list)),  # lists of immutable records
        (backend_api, "copy", types.SimpleNamespace(deepcopy=_copy_without_tensors)),
        (group_partitioner, "_DependencyViewer", Dependencies),
        (partitioner, "_DependencyViewer", Dependencies),
        (export_operators, "_materialize_cpp_cia_ops", register_once),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in patches]
    for module, name, value in patches:
        setattr(module, name, value)
    gc.disable()
    gc.freeze()  # what was there before lowering is not searched for garbage at every pass
    try:
        yield
    finally:
        gc.unfreeze()
        for module, name, value in before:
            setattr(module, name, value)
        if collecting:
            gc.enable()


def _copy_without_tensors(value: Any) -> Any:
    """A deep copy; of an exported program, one with the same weights, which the delegate only reads."""
    kept: list[Tensor] = []
    if isinstance(value, ExportedProgram):
        kept += value.state_dict.values()
        kept += (constant for constant in value.constants.values() if isinstance(constant, Tensor))
    return copy.deepcopy(value, {id(tensor): tensor for tensor in kept})
