"""Cases of matrix products, attention, normalization, images, pooling and quantized activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from elementwise_cases import HALVES, values
from one_op import Case

X = values(1, 4, 7, 6)
BIAS = values(6, seed=2)


def padded_conv(pads: list[int], **fixed: Any) -> Callable[..., torch.Tensor]:
    """PyTorch's convolution of an image padded by (top, bottom, left, right), written out by hand for each case."""
    top, bottom, left, right = pads

    def want(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, **fixed)

    return want


def conv(pads: list[int], weight: np.ndarray, fixed: dict[str, Any], **arguments: Any) -> Case:
    named = {{"stride": "strides", "dilation": "dilations"}.get(k, k): v for k, v in fixed.items()}
    return Case("conv", {"x": X, "weight": weight, **named, **arguments}, want=padded_conv(pads, **fixed))


# "same" of 7 rows: with kernel 3 and stride 2 the 4 results need 9 rows; with kernel 4 and stride 1, 10.
CONVS = [
    conv([0, 0, 0, 0], values(6, 4, 3, 3), {}),
    conv([0, 0, 0, 0], values(6, 4, 3, 2), {"stride": [2, 1]}, pad_type="valid", bias=BIAS),
    conv([1, 1, 1, 1], values(6, 4, 3, 3), {"stride": [2, 2]}, pad_type="custom", pad=[1, 1, 1, 1], bias=BIAS),
    conv([0, 1, 2, 0], values(6, 4, 3, 3), {"stride": [1, 2]}, pad_type="custom", pad=[0, 1, 2, 0]),
    conv([1, 1, 0, 1], values(6, 4, 3, 3), {"stride": [2, 2]}, pad_type="same", bias=BIAS),
    conv([1, 2, 1, 2], values(6, 4, 4, 4), {}, pad_type="same"),
    conv([2, 1, 2, 1], values(6, 4, 4, 4), {}, pad_type="same_lower"),
    conv([2, 2, 3, 3], values(6, 4, 3, 3), {"dilation": [2, 3]}, pad_type="same"),
    conv([1, 1, 1, 1], values(6, 2, 3, 3), {"groups": 2}, pad_type="custom", pad=[1, 1, 1, 1], bias=BIAS),
    conv([0, 0, 0, 0], values(4, 1, 3, 3), {"groups": 4}),
    Case(
        "conv",
        {"x": values(2, 4, 9), "weight": values(3, 4, 3), "strides": [2], "pad_type": "custom", "pad": [2, 1]},
        want=lambda x, weight, **_: F.conv1d(F.pad(x, (2, 1)), weight, stride=2),
    ),
    Case(
        "conv",
        {"x": values(1, 2, 3, 4, 5), "weight": values(3, 2, 2, 2, 2), "pad_type": "valid"},
        want=lambda x, weight, **_: F.conv3d(x, weight),
    ),
]

TRANSPOSED = [
    Case(
        "conv_transpose",
        {"x": X, "weight": values(4, 6, 3, 3), "bias": BIAS, "strides": [2, 1]},
        want=lambda x, weight, bias, **_: F.conv_transpose2d(x, weight, bias, (2, 1)),
    ),
    Case(
        "conv_transpose",
        {"x": X, "weight": values(4, 3, 4, 4), "bias": BIAS, "strides": [2, 2], "groups": 2, "dilations": [1, 2]}
        | {"pad_type": "custom", "pad": [1, 1, 1, 1]},
        want=lambda x, weight, bias, **_: F.conv_transpose2d(x, weight, bias, 2, 1, 0, 2, (1, 2)),
    ),
    Case(
        "conv_transpose",
        {"x": X, "weight": values(4, 6, 3, 3), "bias": BIAS, "strides": [2, 2], "pad_type": "custom"}
        | {"pad": [1, 0, 1, 0]},
        want=lambda x, weight, bias, **_: F.conv_transpose2d(x, weight, bias, 2, 0)[..., 1:, 1:],
    ),
    Case(
        "conv_transpose",
        {"x": X, "weight": values(4, 6, 3, 3), "bias": BIAS, "strides": [2, 2], "pad_type": "custom"}
        | {"pad": [1, 1, 1, 1], "output_shape": [1, 6, 14, 12]},
        want=lambda x, weight, bias, **_: F.conv_transpose2d(x, weight, bias, 2, 1, output_padding=1),
    ),
    Case(
        "conv_transpose",
        {"x": X, "weight": values(4, 6, 3, 3), "strides": [2, 2], "pad_type": "same"},
        want=lambda x, weight, **_: F.conv_transpose2d(x, weight, None, 2)[..., :-1, :-1],
    ),
    Case(
        "conv_transpose",
        {"x": values(1, 4, 5), "weight": values(4, 2, 2), "strides": [2]},
        want=lambda x, weight, **_: F.conv_transpose1d(x, weight, None, 2),
    ),
]

PRODUCTS = [
    Case("linear", {"x": values(2, 5, 4), "weight": values(3, 4, seed=1)}),
    Case("linear", {"x": values(4), "weight": values(3, 4, seed=1), "bias": values(3, seed=2)}),
    Case("matmul", {"x": values(2, 3, 4, 5), "y": values(3, 5, 2, seed=1)}),
    Case("matmul", {"x": values(2, 5, 4), "y": values(2, 6, 5, seed=1), "transpose_x": True, "transpose_y": True}),
    Case("einsum", {"values": [values(2, 3, 4, 5), values(2, 5, 4, 6)], "equation": "nchw,nwhu->nchu"}),
    Case("einsum", {"values": [values(3, 4, 5), values(5, 4, 6)], "equation": "chw,whr->chr"}),
    *[
        Case(
            "scaled_dot_product_attention",
            {"query": values(*lead, 5, 8), "key": values(*lead, 7, 8, seed=1), "value": values(*lead, 7, 3, seed=2)}
            | mask,
        )
        for lead, mask in [
            ((2,), {}),
            ((1, 3), {"attn_mask": values(5, 7, seed=3)}),
            ((2, 3), {"attn_mask": values(2, 1, 1, 7, seed=3)}),
            ((2,), {"attn_mask": values(5, 7, seed=3) > -2}),
        ]
    ],
]


def spread(x: torch.Tensor, axes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    mean = x.double().mean(axes, keepdim=True)
    return mean, ((x.double() - mean) ** 2).mean(axes, keepdim=True)


def instance(
    x: torch.Tensor, gamma: torch.Tensor | None = None, beta: torch.Tensor | None = None, epsilon: float = 1e-5
) -> torch.Tensor:
    mean, variance = spread(x, tuple(range(2, x.dim())))
    shape = (1, -1) + (1,) * (x.dim() - 2)
    y = (x - mean) / torch.sqrt(variance + epsilon)
    return y if gamma is None else y * gamma.reshape(shape) + beta.reshape(shape)


def batch(x: torch.Tensor, mean: Any, variance: Any, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5) -> Any:
    mean, variance = mean.reshape(1, -1, 1, 1), variance.reshape(1, -1, 1, 1)
    y = (x - mean) / torch.sqrt(variance + epsilon)
    y = y if gamma is None else y * gamma.reshape(1, -1, 1, 1)
    return y if beta is None else y + beta.reshape(1, -1, 1, 1)


def response(x: torch.Tensor, size: Any, alpha: Any = 1e-4, beta: Any = 0.75, k: Any = 1.0) -> torch.Tensor:
    n = int(size)
    squares = F.pad(x**2, (0, 0, 0, 0, n // 2, (n - 1) // 2))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(n))
    return x / (k + alpha / n * total) ** beta


FOUR = {name: values(4, low=0.2, seed=seed) for seed, name in enumerate(("mean", "variance", "gamma", "beta"))}
GAMMA_BETA = {"gamma": FOUR["gamma"], "beta": FOUR["beta"]}
EPSILON = {"epsilon": np.float32(0.01)}
NORMS = [
    Case("batch_norm", {"x": X, **FOUR, **EPSILON}, want=batch),
    Case("batch_norm", {"x": X, "mean": FOUR["mean"], "variance": FOUR["variance"]}, want=batch),
    Case("batch_norm", {"x": X} | {k: v for k, v in FOUR.items() if k != "gamma"}, want=batch),
    Case("instance_norm", {"x": X, **GAMMA_BETA, **EPSILON}, want=instance),
    Case("instance_norm", {"x": X * 1e-3}, want=instance),
    Case("instance_norm", {"x": values(2, 4, 9), **GAMMA_BETA}, want=instance),
    Case("layer_norm", {"x": X, "axes": [-1], "gamma": values(6), "beta": values(6, seed=1), **EPSILON}),
    Case("layer_norm", {"x": X * 1e-3, "axes": [2, 3]}),
    Case("layer_norm", {"x": X, "axes": [1], **GAMMA_BETA}),
    Case("layer_norm", {"x": X, "axes": [1, 3], "gamma": values(4, 6), "beta": values(4, 6, seed=1)}),
    Case("layer_norm", {"x": X, "axes": [3, 1, 0, 2]}),
    Case("l2_norm", {"x": values(2, 3, 2, 4)}),
    Case("l2_norm", {"x": values(3, 2, 4), **EPSILON}),
    Case("local_response_norm", {"x": X, "size": 3, "alpha": np.float32(0.5)}, want=response),
    Case("local_response_norm", {"x": X, "size": 2, "beta": np.float32(0.5), "k": np.float32(2)}, want=response),
]


def blocks(x: torch.Tensor, scale_factor_height: Any = 1, scale_factor_width: Any = 1) -> np.ndarray:
    return x.numpy().repeat(int(scale_factor_height), -2).repeat(int(scale_factor_width), -1)


def bilinear(corners: bool) -> Callable[..., torch.Tensor]:
    def want(x: torch.Tensor, **_: Any) -> torch.Tensor:
        return F.interpolate(x, size=(14, 15), mode="bilinear", align_corners=corners)

    return want


def at(*grids: list[float]) -> Callable[..., np.ndarray]:
    """Linear interpolation at the grid points that MIL's documentation lists."""

    def want(x: torch.Tensor, **_: Any) -> np.ndarray:
        result = x.numpy().astype(np.float64)
        for axis, grid in zip((-2, -1), grids, strict=True):
            places = np.arange(result.shape[axis])
            result = np.apply_along_axis(lambda row, p=places, g=grid: np.interp(g, p, row), axis, result)
        return result

    return want


PAIR = values(1, 2, 2, 2)
SIXTH = [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12]
GRIDS = {
    "UNALIGN_CORNERS": ([0, 0.1, 0.5, 0.9, 1], [0, 0, 1 / 3, 2 / 3, 1, 1]),
    "STRICT_ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "DEFAULT": ([0, 0.4, 0.8, 1, 1], [0, 1 / 3, 2 / 3, 1, 1, 1]),
    "OFFSET_CORNERS": ([0.1, 0.3, 0.5, 0.7, 0.9], SIXTH),
}
SIX = {"scale_factor_height": np.float32(2.0), "scale_factor_width": np.float32(2.5)}
IMAGES = [
    Case("upsample_nearest_neighbor", {"x": X, "scale_factor_height": 2, "scale_factor_width": 3}, want=blocks),
    Case("upsample_nearest_neighbor", {"x": values(4, 3, 2), "scale_factor_width": np.float32(2.0)}, want=blocks),
    *[
        Case(
            "resize_nearest_neighbor",
            {"x": X, "target_size_height": h, "target_size_width": w},
            want=lambda x, h=h, w=w, **_: F.interpolate(x, size=(h, w), mode="nearest"),
        )
        for h, w in [(14, 12), (5, 9), (3, 6)]
    ],
    Case("upsample_bilinear", {"x": X, **SIX}, want=bilinear(True)),
    Case("upsample_bilinear", {"x": X, **SIX, "align_corners": False}, want=bilinear(False)),
    Case(
        "upsample_bilinear", {"x": X, **SIX, "align_corners": False, "half_pixel_centers": True}, want=bilinear(False)
    ),
    Case(
        "upsample_bilinear",
        {"x": PAIR, "scale_factor_height": 2, "align_corners": False, "half_pixel_centers": False},
        want=at([0, 0.5, 1, 1], [0, 1]),
    ),
    *[
        Case(
            "resize_bilinear",
            {"x": PAIR, "target_size_height": 5, "target_size_width": 6, "sampling_mode": mode},
            want=at(*grids),
        )
        for mode, grids in GRIDS.items()
    ],
    Case("resize_bilinear", {"x": PAIR}, want=at([0], [0])),
    Case("resize_bilinear", {"x": PAIR, "sampling_mode": "ALIGN_CORNERS"}, want=at([0.5], [0.5])),
    Case("resize_bilinear", {"x": PAIR, "sampling_mode": "OFFSET_CORNERS"}, want=at([0.5], [0.5])),
    Case(
        "resize",
        {"x": PAIR, "shape": [7, 5, 0], "resized_dims": np.uint32(2), "sampling_mode": "UNALIGN_CORNERS"},
        want=at(GRIDS["UNALIGN_CORNERS"][0], [0, 1]),
    ),
    Case("pad", {"x": X, "pad": [1, 2, 0, 3], "constant_val": np.float32(1.5)}),
    Case("pad", {"x": X, "pad": [0, 0, 1, 0, 2, 1, 0, 3]}),
    Case("pad", {"x": X, "pad": [2, 3, 1, 4], "mode": "reflect"}),
    Case("pad", {"x": X, "pad": [0, 0, 2, 1, 0, 0, 1, 3], "mode": "replicate"}),
    Case("crop", {"x": X, "crop_height": [1, 2], "crop_width": [0, 3]}, want=lambda x, **_: x[..., 1:-2, :-3]),
]


def pooled(reduce: Callable[[np.ndarray], np.ndarray], pads: list[int], k: int, s: int, fill: float = np.nan) -> Any:
    """Window by window, with (top, bottom, left, right) padding of `fill`; NaN takes no part."""

    def want(x: torch.Tensor, **_: Any) -> np.ndarray:
        top, bottom, left, right = pads
        image = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
        rows, columns = range(0, image.shape[2] - k + 1, s), range(0, image.shape[3] - k + 1, s)
        return np.stack([np.stack([reduce(image[:, :, r : r + k, c : c + k]) for c in columns], -1) for r in rows], -2)

    return want


def mean(window: np.ndarray) -> np.ndarray:
    return np.nanmean(window, (-2, -1))


def largest(window: np.ndarray) -> np.ndarray:
    return np.nanmax(window, (-2, -1))


def length(window: np.ndarray) -> np.ndarray:
    return np.sqrt(np.nansum(window**2, (-2, -1)))


def pool(op: str, want: Any, k: int, s: int, **arguments: Any) -> Case:
    return Case(op, {"x": X, "kernel_sizes": [k, k], "strides": [s, s], **arguments}, want=want)


CUSTOM = {"pad_type": "custom", "pad": [1, 0, 2, 1]}
POOLS = [
    pool("avg_pool", pooled(mean, [0, 0, 0, 0], 2, 2), 2, 2, pad_type="valid"),
    pool("avg_pool", pooled(mean, [1, 0, 2, 1], 3, 2, 0.0), 3, 2, **CUSTOM),
    pool("avg_pool", pooled(mean, [1, 0, 2, 1], 3, 2), 3, 2, **CUSTOM, exclude_padding_from_average=True),
    pool("avg_pool", pooled(mean, [1, 1, 0, 1], 3, 2, 0.0), 3, 2, pad_type="same"),
    pool("avg_pool", pooled(mean, [1, 1, 1, 0], 3, 2), 3, 2, pad_type="same_lower", exclude_padding_from_average=True),
    pool(
        "avg_pool",
        lambda x, **_: F.avg_pool2d(x, 2, 2, 1, True, False),
        2,
        2,
        pad_type="custom",
        pad=[1, 1, 1, 1],
        ceil_mode=True,
        exclude_padding_from_average=True,
    ),
    Case(
        "avg_pool",
        {"x": values(1, 2, 9), "kernel_sizes": [3], "pad_type": "valid"},
        want=lambda x, **_: F.avg_pool1d(x, 3, 1),
    ),
    pool("max_pool", pooled(largest, [0, 0, 0, 0], 2, 2), 2, 2, pad_type="valid"),
    pool("max_pool", pooled(largest, [1, 0, 2, 1], 3, 2), 3, 2, **CUSTOM),
    pool("max_pool", pooled(largest, [1, 1, 0, 1], 3, 2), 3, 2, pad_type="same"),
    pool("max_pool", lambda x, **_: F.max_pool2d(x, 2, 2, ceil_mode=True), 2, 2, pad_type="valid", ceil_mode=True),
    pool("l2_pool", pooled(length, [0, 0, 0, 0], 2, 2), 2, 2, pad_type="valid"),
    pool("l2_pool", pooled(length, [1, 0, 2, 1], 3, 2), 3, 2, **CUSTOM),
]

SCALES = {"scale": values(4, low=0.01, high=0.05), "axis": 1}
CODES = np.random.default_rng(0).integers(-128, 128, (1, 4, 3, 2)).astype(np.int8)
QUANTIZED = [
    Case("quantize", {"input": HALVES, "scale": np.float32(1), "zero_point": np.int8(1), "output_dtype": "int8"}),
    Case("quantize", {"input": X, "scale": np.float32(0.02), "output_dtype": "int8"}),
    Case("quantize", {"input": X, "scale": np.float32(0.0234), "zero_point": np.uint8(128), "output_dtype": "uint8"}),
    Case("quantize", {"input": X, **SCALES, "zero_point": np.array([1, -2, 3, 0], np.int8), "output_dtype": "int8"}),
    Case("quantize", {"input": X, **SCALES, "axis": -3, "output_dtype": "uint8"}),
    Case("dequantize", {"input": CODES, "scale": np.float32(0.02)}),
    Case("dequantize", {"input": CODES, "scale": np.float32(0.02), "zero_point": np.int8(-7)}),
    Case("dequantize", {"input": CODES, **SCALES, "zero_point": np.array([1, -128, 3, 0], np.int8)}),
    Case("dequantize", {"input": CODES.view(np.uint8), **SCALES, "axis": -3}),
]

CASES = CONVS + TRANSPOSED + PRODUCTS + NORMS + IMAGES + POOLS + QUANTIZED
