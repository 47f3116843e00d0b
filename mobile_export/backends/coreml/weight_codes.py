"""The pass that puts our codes where the converter left the layers' float weights.

const(weight) -> conv                  becomes   constexpr(codes) -> conv
const(weight) -> conv (+ bias)         becomes   constexpr(palette) -> conv -> mul(scale) -> add(bias)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from correction.errors import CheckFailed
from mobile_export.backends.coreml.encoding import Affine, Encoding, Palette, encode
from mobile_export.quantize.table import LayerQuantization


def codes_name(layer: str) -> str:
    """The name of a layer's codes in a saved program."""
    return f"{layer.replace('.', '_')}_codes"


def put_codes(program: Any, layers: Mapping[str, LayerQuantization], weights: Mapping[str, str], ios: str) -> None:
    """Rewrite a MIL program in place. layers: by full layer name; weights: name of a weight in the program
    (before any suffix of a cast) -> full layer name.

    Raises CheckFailed when a layer's weight is not found exactly once, or is not what the codes stand for.
    """
    from coremltools.converters.mil.mil.passes.helper import block_context_manager

    by_name = {constant: name for constant, name in weights.items() if name in layers}

    @block_context_manager
    def rewrite(block: Any) -> None:
        waiting = set(layers)
        for op in list(block.operations):
            if op.op_type not in ("conv", "linear") or op.weight.op is None:
                continue
            constant = op.weight.op.name.removesuffix("_to_fp16")
            if constant not in by_name:
                continue
            name = by_name[constant]
            if name not in waiting:
                raise CheckFailed(f"the weight of {name} is used twice in the converted program")
            waiting.remove(name)
            weight = layers[name].weight
            expected = weight.dequantize().numpy().reshape(op.weight.shape).astype(op.weight.val.dtype)
            if not np.array_equal(op.weight.val, expected):
                raise CheckFailed(f"the converter changed the weight of {name}")
            _replace(block, op, name, encode(name, weight, op.weight.rank, ios), ios)
        if waiting:
            missing = ", ".join(sorted(waiting)[:5])
            raise CheckFailed(f"the converted program lacks the weights of {len(waiting)} layers: {missing}")

    rewrite(program.functions["main"])


def _replace(block: Any, op: Any, name: str, encoding: Encoding, ios: str) -> None:
    from coremltools.converters.mil.mil import Builder as mb

    kind = op.weight.val.dtype
    inputs = {key: value for key, value in op.inputs.items() if value is not None}
    inputs["weight"] = _constant(op, codes_name(name), encoding, ios, kind)
    build = getattr(mb, op.op_type)
    after = encoding.output_scale if isinstance(encoding, Palette) else None
    if after is None:
        result = build(**inputs, before_op=op, name=op.name)
    else:
        bias = inputs.pop("bias", None)
        channels = (1, -1, *[1] * (op.outputs[0].rank - 2)) if op.op_type == "conv" else (-1,)
        result = build(**inputs, before_op=op, name=f"{op.name}_unscaled")
        last = op.name if bias is None else f"{op.name}_scaled"
        result = mb.mul(x=result, y=after.reshape(channels).astype(kind), before_op=op, name=last)
        if bias is not None:
            result = mb.add(x=result, y=bias.val.reshape(channels), before_op=op, name=op.name)
    block.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=result)
    block.remove_ops([op])


def _constant(before: Any, name: str, encoding: Encoding, ios: str, kind: np.dtype) -> Any:
    from coremltools.converters.mil.frontend._utils import _construct_constexpr_lut_op
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    if isinstance(encoding, Affine):
        scale = encoding.scale.astype(kind)
        if ios == "ios17":
            return mb.constexpr_affine_dequantize(
                quantized_data=encoding.codes,
                zero_point=np.int8(0),
                scale=scale.reshape(-1),
                axis=0,
                before_op=before,
                name=name,
            )
        stored = types.nptype_from_builtin(types.string_to_builtin(f"int{encoding.bits}"))
        return mb.constexpr_blockwise_shift_scale(
            data=encoding.codes.astype(stored), scale=scale, before_op=before, name=name
        )
    palette = encoding.palette.astype(kind)
    lut = palette.reshape(len(palette), *[1] * (encoding.indices.ndim - 1), -1, 1)
    return _construct_constexpr_lut_op(encoding.indices, lut, name=name, before_op=before)
