"""The operations of ML programs, one function each; importing this package fills `registry.OPS`."""

from mobile_export.coreml_simulator.ops import (
    activation,
    constexpr,
    creation,
    elementwise,
    image,
    indexing,
    matrix,
    normalization,
    pooling,
    quantization,
    reduction,
    shape,
    state,
)
from mobile_export.coreml_simulator.ops.registry import OPS

__all__ = [
    "OPS",
    "activation",
    "constexpr",
    "creation",
    "elementwise",
    "image",
    "indexing",
    "matrix",
    "normalization",
    "pooling",
    "quantization",
    "reduction",
    "shape",
    "state",
]
