"""Shortcuts of lowering: what executorch and torch do over and over, or to no effect. The bytes are the same without.

A pass of the exporter traces the whole graph anew, whether it changes anything or not, and there are some thirty; that
is most of the time of lowering a UNet. Here a pass runs if there is something in the graph that it would change. The
names are those of the pinned executorch and torch; what they are changed to lasts as long as one lowering.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import operator
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, TensorType
from torch._export.utils import _is_cia_op, _is_preservable_cia_op
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from mobile_export.backends.executorch.deferred_code import deferring
from mobile_export.backends.executorch.dependencies import Dependencies
from mobile_export.backends.executorch.primitives import write_primitives

MOST_CONCATENATED = 5  # by XNNPACK, in one operation
Needs = Callable[[Node], bool]


def _named(*words: str) -> Needs:
    """Whether one of these is in the name of a node's operator."""
    return lambda node: any(word in str(node.target) for word in words)


def _a_view(node: Node) -> bool:
    return bool(getattr(node.target, "is_view", False))


def _long_concatenation(node: Node) -> bool:
    return "aten.cat" in str(node.target) and len(node.args[0]) > MOST_CONCATENATED  # type: ignore[arg-type]


def _a_product(node: Node) -> bool:
    """Of two matrices, or of stacks of them that were a linear layer."""
    was_linear = "linear" in str(node.meta.get("source_fn_stack"))
    return _named("aten.mm.", "addmm")(node) or (was_linear and _named("bmm")(node))


def _a_constant(node: Node) -> bool:
    return not node.all_input_nodes


def _mixed_types(node: Node) -> bool:
    """Whether its inputs are not all tensors of one type."""
    given = [each.meta.get("val") if isinstance(each, Node) else each for each in node.args]
    types = {each.dtype if isinstance(each, Tensor) else None for each in given}
    return _named("add.", "mul.", "sub.", "div.", "minimum")(node) and (len(types) > 1 or None in types)


def _number_for_a_tensor(node: Node) -> bool:
    """Whether one of its arguments is a number where the operator takes a tensor."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return False
    given = [*zip(schema.arguments, node.args, strict=False)]
    given += [(each, node.kwargs[each.name]) for each in schema.arguments if each.name in node.kwargs]
    return any(isinstance(value, (bool, int, float)) and isinstance(of.type, TensorType) for of, value in given)


# By the name of a pass, what a node must be for it to have something to do; a pass that is not listed always runs.
NEEDS: Mapping[str, Needs] = {
    "ScalarToTensorPass": _number_for_a_tensor,
    "SymToTensorPass": _named("sym_"),
    "RemoveMixedTypeOperators": _mixed_types,
    "NormalizeTransposePass": _named("aten.t."),
    "ReplaceBrokenOpsWithFunctionalOpsPass": _a_view,
    "MemoryFormatOpsPass": _named("_to_copy", "empty", "clone"),
    "DimOrderOpsRevertPass": _named("_dim_order"),
    "LegalizePortableDimOrderPass": _named("avg_pool2d", "expand_copy", "mean", "sum"),
    "ConvertToUpsampleBilinear2d": _named("upsample", "index", "arange"),
    "ConvertToLinearPass": _a_product,
    "ConvertToSDPAPass": _named("scaled_dot_product"),
    "ConstPropPass": _a_constant,
    "FuseBatchNormPass": _named("batch_norm"),
    "DecomposeBatchNorm": _named("batch_norm"),
    "FuseActivationPass": _named("relu", "hardtanh", "clamp"),
    "DecomposeConcatenate": _long_concatenation,
    "RemoveGetItemPass": _named("max_pool", "max.dim"),
    "Conv1dUnsqueezePass": _named("convolution"),
    "PReLUReshapePass": _named("prelu"),
    "ChannelsLastTaggedReshapePass": _named("convolution", "conv2d", "pool", "upsample", "prelu", "mean"),
    "RemoveRedundantCopyPass": _named("_to_copy", "_to_dim_order_copy"),
    "PropagateCustomMetaPass": lambda node: False,
}


@contextlib.contextmanager
def take_shortcuts() -> Iterator[None]:
    """Skips passes and decompositions that have nothing to do, and the checks between passes: the last program is
    checked, and the types of arguments once, before delegation. Shares provenance records and tensors instead of
    copying them, keeps dependencies as bits, writes the code of a graph when it is called, searches what is new alone
    for garbage. Everything is put back at the end."""
    import executorch.backends.xnnpack._passes as passes
    import executorch.exir.backend.backend_api as backend_api
    import executorch.exir.backend.canonical_partitioners.group_partitioner as group_partitioner
    import executorch.exir.verification.verifier as verifier
    import torch._export.utils as export_operators
    import torch.fx.passes.infra.partitioner as partitioner
    import torch.fx.traceback as traceback

    transform, collecting = passes._transform, gc.isenabled()
    run_pass, decompose = PassBase.__call__, ExportedProgram.run_decompositions

    def transform_if_needed(program: ExportedProgram, *pass_list: Any, **options: Any) -> ExportedProgram:
        if not any(_has_work(each, program.graph_module) for each in pass_list):
            return program
        gc.collect()
        return transform(program, *pass_list, **options)

    def run_if_needed(self: PassBase, graph_module: GraphModule) -> PassResult | None:
        return run_pass(self, graph_module) if _has_work(self, graph_module) else PassResult(graph_module, False)

    def decompose_if_needed(self: ExportedProgram, table: Any = None, *rest: Any) -> ExportedProgram:
        if table:
            write_primitives(self.graph_module)
        if table is not None and not any(_decomposes(node, table) for node in _calls(self.graph_module)):
            return self
        return decompose(self, table, *rest)

    check_types, types_checked = verifier._check_tensor_args_matching_op_allowed_dtype, False

    def check_types_once(graph_module: GraphModule) -> None:
        nonlocal types_checked
        if not types_checked:
            check_types(graph_module)
        types_checked = True

    register_once = functools.cache(export_operators._materialize_cpp_cia_ops)
    patches: list[tuple[Any, str, Any]] = [
        (PassBase, "__call__", run_if_needed),
        (ExportedProgram, "run_decompositions", decompose_if_needed),
        (ExportedProgram, "_validate", lambda self: None),
        (GraphModule, "recompile", deferring(GraphModule.recompile)),
        (verifier, "_check_tensor_args_matching_op_allowed_dtype", check_types_once),
        (passes, "_transform", transform_if_needed),
        (traceback, "copy", types.SimpleNamespace(copy=copy.copy, deepcopy=list)),  # lists of immutable records
        (backend_api, "copy", types.SimpleNamespace(deepcopy=_copy_without_tensors)),
        (group_partitioner, "_DependencyViewer", Dependencies),
        (partitioner, "_DependencyViewer", Dependencies),
        (export_operators, "_materialize_cpp_cia_ops", register_once),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    gc.disable()
    gc.freeze()  # what was there before lowering is not searched for garbage at every pass
    try:
        yield
    finally:
        gc.unfreeze()
        for owner, name, value in before:
            setattr(owner, name, value)
        if collecting:
            gc.enable()


def _has_work(run: Any, graph_module: GraphModule) -> bool:
    needs = NEEDS.get(type(run).__name__)
    return needs is None or any(map(needs, _calls(graph_module)))


def _calls(graph_module: GraphModule) -> Iterator[Node]:
    """Of the graph and of those inside it: branches of conditions, bodies of loops."""
    graphs = (module.graph for module in graph_module.modules() if isinstance(module, GraphModule))
    return (node for graph in graphs for node in graph.nodes if node.op == "call_function")


def _decomposes(node: Node, table: Mapping[Any, Any]) -> bool:
    """Whether a run of decompositions would replace the node, or make its operator functional, or may do either.
    Operators that are composed of others ("CIA") are in no table, and come apart if they give views. The first run
    has an empty table; what only comes apart may wait for the second."""
    if node.target is operator.getitem:
        return False
    schema = getattr(node.target, "_schema", None)
    if node.target in table or schema is None or schema.is_mutable:
        return True
    return bool(table) and _is_cia_op(node.target) and not _is_preservable_cia_op(node.target)  # type: ignore[arg-type]


def _copy_without_tensors(value: Any) -> Any:
    """A deep copy; of an exported program, one with the same weights, which the delegate only reads."""
    kept: list[Tensor] = []
    if isinstance(value, ExportedProgram):
        kept += value.state_dict.values()
        kept += (constant for constant in value.constants.values() if isinstance(constant, Tensor))
    return copy.deepcopy(value, {id(tensor): tensor for tensor in kept})
