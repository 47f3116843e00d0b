"""Cases of the operations on single elements, activations and reductions."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from one_op import Case

from mobile_export.coreml_simulator.ops.elementwise import BINARY, EXACT_BINARY, EXACT_UNARY, UNARY
from mobile_export.coreml_simulator.ops.reduction import EXACT_REDUCTIONS, REDUCTIONS


def values(*shape: int, low: float = -3.0, high: float = 3.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def whole(*shape: int, low: int = -5, high: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int32)


X = values(1, 3, 4, 5)
POSITIVE = values(1, 3, 4, 5, low=0.1)
HALVES = np.array([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 3.5, -0.0, 0.49999997], np.float32)
DOMAINS = {
    "acos": values(2, 7, low=-1, high=1),
    "asin": values(2, 7, low=-1, high=1),
    "atanh": values(2, 7, low=-0.99, high=0.99),
    "sqrt": POSITIVE,
    "round": HALVES,
    "floor": HALVES,
    "ceil": HALVES,
    "sign": HALVES,
    "logical_not": np.array([True, False, True]),
}
FLOAT_PAIRS = [(X, values(1, 3, 1, 1, low=0.5, seed=1)), (values(4, 5, low=0.5), values(2, 1, 5, low=0.5, seed=2))]
INT_PAIRS = [(whole(3, 4), whole(4, low=1, high=4, seed=1))]
BOOLS = [(np.array([True, True, False, False]), np.array([True, False, True, False]))]


def binary_cases(name: str) -> list[Case]:
    if name.startswith("logical"):
        pairs = BOOLS
    elif name == "pow":
        pairs = [(POSITIVE, values(3, 1, 1, seed=1)), (X, np.float32(2.0))]
    elif name == "real_div":
        pairs = FLOAT_PAIRS
    else:
        pairs = FLOAT_PAIRS + INT_PAIRS
    return [Case(name, {"x": x, "y": y}) for x, y in pairs]


def reduction_cases(name: str) -> list[Case]:
    x = POSITIVE if name == "reduce_log_sum" else X
    cases = [
        Case(name, {"x": x, "axes": [-1, 1], "keep_dims": True}),
        Case(name, {"x": x, "axes": [2], "keep_dims": False}),
        Case(name, {"x": x, "keep_dims": True}),
        Case(name, {"x": x, "axes": [0, 2, 3]}),
    ]
    if name in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_sum_square"):
        cases.append(Case(name, {"x": whole(3, 4), "axes": [1]}))
    if name == "reduce_log_sum_exp":  # coremltools squeezes with a list of axes there
        return [Case(c.op, dict(c.inputs), want=log_sum_exp) for c in cases]
    return cases


def log_sum_exp(x: torch.Tensor, axes: torch.Tensor | None = None, keep_dims: torch.Tensor | None = None) -> np.ndarray:
    over = tuple(range(x.dim())) if axes is None else tuple(axes.tolist())
    return np.log(np.exp(x.double().numpy()).sum(over, keepdims=bool(keep_dims)))


CHANNELS = {"alpha": values(3, low=0.1, high=1.0), "beta": values(3, low=0.5, high=1.0, seed=1)}
FIXED = [
    Case("inverse", {"x": POSITIVE, "epsilon": np.float32(0.25)}),
    Case("inverse", {"x": POSITIVE}),
    Case("log", {"x": POSITIVE, "epsilon": np.float32(0.25)}),
    Case("log", {"x": POSITIVE}),
    Case("rsqrt", {"x": POSITIVE, "epsilon": np.float32(0.25)}),
    Case("rsqrt", {"x": POSITIVE}),
    Case("clip", {"x": X, "alpha": np.float32(-0.5), "beta": np.float32(1.25)}),
    Case("threshold", {"x": X, "alpha": np.float32(0.5)}),
    Case("threshold", {"x": whole(3, 4), "alpha": np.int32(1)}),
    Case("select", {"cond": X > 0, "a": X, "b": values(3, 1, 1, seed=3)}),
    Case("select", {"cond": np.array([True, False]), "a": whole(2), "b": whole(2, seed=1)}),
    Case("cast", {"x": values(3, 4, low=-100, high=100), "dtype": "int32"}),
    Case("cast", {"x": np.array([0.0, 0.5, -2.0], np.float32), "dtype": "bool"}),
    Case("cast", {"x": whole(3, 4, low=-128, high=128), "dtype": "int8"}),
    Case("cast", {"x": whole(3, 4, low=-300, high=300), "dtype": "uint8"}),
    Case("cast", {"x": whole(3, 4), "dtype": "fp32"}),
    Case("cast", {"x": np.array([True, False]), "dtype": "fp32"}),
    Case("cast", {"x": whole(3, 4, low=0, high=60000), "dtype": "uint16"}),
    Case("relu", {"x": X}),
    Case("relu6", {"x": values(3, 4, low=-9, high=9)}),
    Case("clamped_relu", {"x": X, "alpha": np.float32(0.25), "beta": np.float32(1.5)}),
    Case("leaky_relu", {"x": X, "alpha": np.float32(0.125)}),
    Case("thresholded_relu", {"x": X, "alpha": np.float32(0.75)}, want=lambda x, alpha: F.threshold(x, alpha, 0)),
    Case("prelu", {"x": X, "alpha": CHANNELS["alpha"]}),
    Case("elu", {"x": X, "alpha": np.float32(0.75)}),
    Case("gelu", {"x": X}),
    Case("gelu", {"x": X, "mode": "EXACT"}),
    Case("gelu", {"x": X, "mode": "TANH_APPROXIMATION"}),
    Case("gelu", {"x": X, "mode": "SIGMOID_APPROXIMATION"}),
    Case("silu", {"x": X}, want=lambda x: x / (1 + torch.exp(-x))),
    Case("sigmoid", {"x": values(50, low=-20, high=20)}),
    Case("sigmoid_hard", {"x": X, "alpha": np.float32(0.25), "beta": np.float32(0.5)}),
    Case("tanh", {"x": X}),
    Case("scaled_tanh", {"x": X, "alpha": np.float32(1.5), "beta": np.float32(0.5)}),
    Case("linear_activation", {"x": X, "alpha": np.float32(1.5), "beta": np.float32(0.5)}),
    Case("softplus", {"x": values(50, low=-30, high=30)}),
    Case("softplus_parametric", {"x": X, **CHANNELS}),
    Case("softsign", {"x": X}),
    Case("softmax", {"x": X}),
    Case("softmax", {"x": X * 30, "axis": 1}),
    Case("reduce_argmax", {"x": X, "axis": 2}),
    Case("reduce_argmax", {"x": X, "axis": -1, "keep_dims": True, "output_dtype": "uint16"}),
    Case("reduce_argmin", {"x": X}),
    Case("reduce_argmin", {"x": X, "axis": 1, "keep_dims": True}),
    Case("cumsum", {"x": X, "axis": 2}),
    Case("cumsum", {"x": whole(3, 4)}),
    Case("cumsum", {"x": X, "axis": 1, "reverse": True}),
    Case(
        "cumsum",
        {"x": X, "axis": 3, "exclusive": True},
        want=lambda x, **_: F.pad(x, (1, 0))[..., :-1].cumsum(3),
    ),
]

CASES = (
    [Case(name, {"x": DOMAINS.get(name, X)}) for name in UNARY | EXACT_UNARY]
    + [Case(name, {"x": whole(3, 4)}) for name in ("abs", "sign", "square")]
    + [case for name in BINARY | EXACT_BINARY for case in binary_cases(name)]
    + [case for name in REDUCTIONS | EXACT_REDUCTIONS for case in reduction_cases(name)]
    + reduction_cases("reduce_prod")
    + FIXED
)
