"""Conversion: a PyTorch network and its codes -> an ML program, and nothing that would compute another function."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from mobile_export.backends.coreml.exact_factors import exact_factors
from mobile_export.backends.coreml.network import Convertible, Interface
from mobile_export.backends.coreml.weight_codes import put_codes
from mobile_export.quantize.table import LayerQuantization

# Passes of the converter that are left out:
_HARMFUL = {
    # y = gamma * x + beta as batch_norm, whose default epsilon scales y by 1 / sqrt(1 + 1e-5)
    "common::fuse_elementwise_to_batchnorm",
    # folds a factor into weights, which would then no longer be the codes
    "common::fuse_conv_scale",
    "common::fuse_conv_batchnorm",
    # makes one constant of two layers whose weights happen to be equal (all zero, for instance)
    "common::const_deduplication",
    # moves a quantization away from its layer, past a reshape
    "common::int_op_canonicalization",
}
_IO_TYPES = {torch.float32: np.float32, torch.int32: np.int32}
_EXACT_ENDS = {"sin": "angle", "cos": "angle", "reduce_argmin": "code"}  # operations that need float32, and for what
SPECIFICATIONS = {"ios17": 8, "ios18": 9}


def convert(network: nn.Module, interface: Interface, layers: Mapping[str, LayerQuantization], ios: str) -> Any:
    """The network as a coremltools MLModel that was never loaded: float16 inside, float32 inputs and output.

    network: its layers named in `layers` are PlainLayers. The sinusoids of the timestep are computed in
    float32: in float16 a timestep of 999 is known to half a unit. So are the distances to the codes of a codebook, of
    which the least decides. Raises CheckFailed where codes cannot be placed.
    """
    import coremltools as ct
    from coremltools.converters.mil.converter import mil_convert

    example = tuple(interface.inputs.values())
    module = Convertible(network, tuple(interface.inputs)).eval()
    with torch.no_grad():
        exported = torch.export.export(module, example).run_decompositions({})
    exact_factors(exported)
    pipeline = ct.PassPipeline()
    pipeline.remove_passes(_HARMFUL)
    keep_float32 = _Float32Operations()
    with _quiet_converter(), _checked_at_the_ends():
        program = ct.convert(
            exported,
            inputs=[
                ct.TensorType(name=name, shape=tuple(value.shape), dtype=_IO_TYPES[value.dtype])
                for name, value in interface.inputs.items()
            ],
            outputs=[ct.TensorType(name=interface.output, dtype=np.float32)],
            convert_to="milinternal",
            minimum_deployment_target={"ios17": ct.target.iOS17, "ios18": ct.target.iOS18}[ios],
            compute_precision=ct.transform.FP16ComputePrecision(op_selector=lambda op: op not in keep_float32),
            pass_pipeline=pipeline,
        )
        program.functions["main"]._essential_scope_sources.clear()  # records of origin; new operations have none
        put_codes(program, layers, module.weight_names(), ios)
        finish = ct.PassPipeline.EMPTY
        finish.append_pass("common::dead_code_elimination")
        return mil_convert(
            program,
            convert_to="mlprogram",
            convert_from="milinternal",
            specification_version=SPECIFICATIONS[ios],
            compute_units=ct.ComputeUnit.ALL,
            skip_model_load=True,
            pass_pipeline=finish,
        )


class _Float32Operations:
    """Membership: sine, cosine and the choice of the nearest code, and operations whose result ends in one of them."""

    def __init__(self) -> None:
        self.known: dict[Any, frozenset[str]] = {}

    def __contains__(self, op: Any) -> bool:
        if op not in self.known:
            for each in reversed(list(op.enclosing_block.operations)):  # users before what they use
                if each not in self.known:
                    self.known[each] = self._ends(each)
        return bool(self.known[op])

    def _ends(self, op: Any) -> frozenset[str]:
        """Which of _EXACT_ENDS the operation's result goes into. Angles are vectors: not what only images come of."""
        if op.op_type == "const":
            return frozenset()
        users = (user for output in op.outputs for user in output.child_ops)
        ends = frozenset[str]().union(*(self.known.get(user, ()) for user in users))
        own = frozenset({_EXACT_ENDS[op.op_type]} if op.op_type in _EXACT_ENDS else ())
        return own | (ends if op.outputs[0].rank <= 2 else ends - {"angle"})


@contextlib.contextmanager
def _checked_at_the_ends() -> Iterator[None]:
    """The converter checks the whole program before and after each of its passes, which takes much of its time. Here it
    is checked after dead code is eliminated and before it is written, when its check is of origins, too."""
    from coremltools.converters.mil.mil import Program

    check = Program.validate

    def check_with_origins(self: Any, check_essential_scope: bool = False) -> None:
        if check_essential_scope:
            check(self, check_essential_scope)

    Program.validate = check_with_origins
    try:
        yield
    finally:
        Program.validate = check


@contextlib.contextmanager
def _quiet_converter() -> Iterator[None]:
    """The converter draws progress bars on standard error; what goes wrong comes as exceptions."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
