"""Cases of the operations that move, look up and make values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from elementwise_cases import values, whole
from one_op import Case

X = values(2, 3, 4, 5)
FLAGS = np.array([[True, False, True]])


def arrays(arguments: dict[str, Any]) -> dict[str, np.ndarray]:
    """Lists of numbers as int32, what is an array or of flags as it is."""
    made = {name: np.array(value) for name, value in arguments.items()}
    return {name: a.astype(np.int32) if a.dtype == np.int64 else a for name, a in made.items()}


def slices(**arguments: Any) -> Case:
    return Case("slice_by_index", {"x": X, **arrays(arguments)})


SLICES = [
    slices(begin=[0, 1, 0, 2], end=[2, 3, 4, 5]),
    slices(begin=[0, -2, 0, -5], end=[1, -1, 4, -1]),
    slices(begin=[0, 0, 0, 0], end=[2, 3, 4, 5], stride=[1, 2, 3, 2]),
    slices(begin=[1, 2, 3, 4], end=[0, 0, -4, -5], stride=[-1, -1, -2, -3]),
    slices(
        begin=[0, 2, 3, 4],
        end=[0, 0, 0, 0],
        stride=[1, -1, -2, -3],
        begin_mask=[True, False, True, False],
        end_mask=[True, True, True, True],
    ),
    slices(
        begin=[1, -1, 0, 1],
        end=[0, 0, 4, 5],
        begin_mask=[False, False, True, False],
        end_mask=[False, False, True, True],
        squeeze_mask=[True, True, False, False],
    ),
    slices(
        begin=[1, 2, 0, 0],
        end=[2, 3, 4, 5],
        begin_mask=[True, False, False, False],
        squeeze_mask=[True, False, False, False],
    ),
    slices(begin=[0, 0, 0, 0], end=[9, 3, 4, 100]),
]

UPDATES = [
    {"begin": [0, 1, 0, 2], "end": [2, 2, 4, 5], "update": values(2, 1, 4, 3, seed=1)},
    {
        "begin": [0, 0, 0, -1],
        "end": [2, 3, 4, 0],
        "stride": [1, 2, 3, -2],
        "end_mask": [False, False, False, True],
        "update": values(2, 2, 2, 3, seed=1),
    },
    {
        "begin": [1, 0, 0, 0],
        "end": [0, 3, 4, 5],
        "squeeze_mask": [True, False, False, False],
        "update": values(3, 4, 5, seed=1),
    },
]


def tensorflow_blocks(x: torch.Tensor, block_size: torch.Tensor) -> np.ndarray:
    """TensorFlow's definition of depth_to_space, element by element."""
    b, a = int(block_size), x.numpy()
    n, c, h, w = a.shape
    out = np.zeros((n, c // b**2, h * b, w * b), a.dtype)
    for channel, row, column in np.ndindex(*out.shape[1:]):
        inner = (row % b) * b + column % b
        out[:, channel, row, column] = a[:, inner * (c // b**2) + channel, row // b, column // b]
    return out


def tensorflow_depth(x: torch.Tensor, block_size: torch.Tensor) -> np.ndarray:
    b, a = int(block_size), x.numpy()
    n, c, h, w = a.shape
    out = np.zeros((n, c * b**2, h // b, w // b), a.dtype)
    for channel, row, column in np.ndindex(*a.shape[1:]):
        inner = (row % b) * b + column % b
        out[:, inner * c + channel, row // b, column // b] = a[:, channel, row, column]
    return out


def torch_shuffle(x: torch.Tensor, upscale_factor: torch.Tensor) -> np.ndarray:
    f, a = int(upscale_factor), x.numpy()
    n, c, h, w = a.shape
    return a.reshape(n, c // f**2, f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // f**2, h * f, w * f)


def torch_unshuffle(x: torch.Tensor, downscale_factor: torch.Tensor) -> np.ndarray:
    f, a = int(downscale_factor), x.numpy()
    n, c, h, w = a.shape
    return a.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f**2, h // f, w // f)


def interleaved(values: list[torch.Tensor], axis: torch.Tensor, interleave: torch.Tensor) -> np.ndarray:
    out = np.zeros((3, 6), np.float32)
    out[:, 0::3], out[:, 1::3], out[:, 2::3] = (v.numpy() for v in values)
    return out


def windows(x: torch.Tensor, axis: torch.Tensor, size: torch.Tensor, stride: int = 1) -> np.ndarray:
    view = np.lib.stride_tricks.sliding_window_view(x.numpy(), int(size), int(axis))
    return np.moveaxis(view, -1, int(axis) % x.dim() + 1)[:, :, :: int(stride)]


TRIPLE = [values(3, 2, seed=s) for s in range(3)]
RANKS = np.random.default_rng(3).permutation(60).astype(np.float32).reshape(3, 4, 5)  # no two are equal

CASES = [
    Case("identity", {"x": X}),
    Case("reshape", {"x": X, "shape": [6, 20]}),
    Case("reshape", {"x": X, "shape": [-1, 5, 4]}),
    Case("reshape", {"x": X, "shape": [0, -1, 2, 0]}),
    Case("reshape", {"x": X, "shape": [1, 0, 0, 0, -1]}),
    Case("reshape", {"x": values(2, 50), "shape": [1, 0, -1, 0]}),
    Case("reshape", {"x": whole(2, 6), "shape": [-1, 0]}),
    Case("expand_dims", {"x": X, "axes": [0, -1]}),
    Case("expand_dims", {"x": values(4), "axes": [-2, -3]}),
    Case("squeeze", {"x": values(1, 3, 1, 5)}),
    Case("squeeze", {"x": values(1, 3, 1, 5), "axes": [-2]}),
    Case("flatten2d", {"x": X}, want=lambda x: x.reshape(2, 60)),
    Case("flatten2d", {"x": X, "axis": -1}, want=lambda x, axis: x.reshape(24, 5)),
    Case("transpose", {"x": X, "perm": [0, 2, -1, 1]}),
    Case("reverse", {"x": X, "axes": [-1, 0]}),
    Case("reverse", {"x": X}),
    Case("tile", {"x": X, "reps": [1, 2, 1, 3]}),
    Case("concat", {"values": [X, values(2, 1, 4, 5, seed=1)], "axis": 1}),
    Case("concat", {"values": [X, X + 1, X + 2], "axis": -1}),
    Case("concat", {"values": TRIPLE, "axis": -1, "interleave": True}, want=interleaved),
    Case("concat", {"values": [whole(2), whole(3)], "axis": 0}),
    Case("stack", {"values": TRIPLE, "axis": 1}),
    Case("stack", {"values": TRIPLE, "axis": -1}),
    Case("split", {"x": X, "axis": 3, "split_sizes": [1, 3, 1]}),
    Case("split", {"x": X, "axis": -2, "num_splits": 2}),
    Case("slice_by_size", {"x": X, "begin": [0, 1, 2, 1], "size": [2, 1, -1, 3]}),
    *SLICES,
    *[Case("slice_update", {"x": X, **arrays(u)}) for u in UPDATES],
    Case("sliding_windows", {"x": X, "axis": 2, "size": 2, "stride": 2}, want=windows),
    Case("sliding_windows", {"x": X, "axis": -2, "size": 3}, want=windows),
    Case("band_part", {"x": values(2, 4, 5), "lower": 1, "upper": 0}),
    Case("band_part", {"x": values(2, 4, 5), "upper": 2}),
    Case("band_part", {"x": values(5, 4), "lower": 0}),
    Case("pixel_shuffle", {"x": values(2, 8, 2, 3), "upscale_factor": 2}, want=torch_shuffle),
    Case("pixel_unshuffle", {"x": values(2, 2, 4, 6), "downscale_factor": np.uint32(2)}, want=torch_unshuffle),
    Case("depth_to_space", {"x": values(2, 8, 2, 3), "block_size": 2}, want=tensorflow_blocks),
    Case("space_to_depth", {"x": values(2, 2, 4, 6), "block_size": 2}, want=tensorflow_depth),
    Case("gather", {"x": X, "indices": np.array([2, 0], np.int32), "axis": 1}),
    Case("gather", {"x": X, "indices": np.array([[3, 0], [1, 1]], np.int32), "axis": -2}),
    Case("gather", {"x": X, "indices": np.array([-1, 0], np.int32), "axis": 1}, opset=16),
    Case("gather", {"x": X, "indices": np.array([1, 1, 0], np.int32), "validate_indices": True}),
    Case("gather", {"x": X, "indices": np.array([[0, 3], [2, 1]], np.int32), "axis": 2, "batch_dims": 1}),
    Case("gather", {"x": X, "indices": np.array([[[1], [0], [3]]] * 2, np.int32), "axis": 2, "batch_dims": 2}),
    Case("gather", {"x": values(7, 4), "indices": np.array([[5, 6, 0]], np.int32)}),
    Case("gather_along_axis", {"x": values(3, 4), "indices": np.array([[1, 0, 2, 2]], np.int32)}),
    Case(
        "gather_along_axis", {"x": values(2, 4), "indices": np.array([[1, -1], [3, 0]], np.int32), "axis": -1}, opset=16
    ),
    Case("gather_nd", {"x": X, "indices": np.array([[0, 2], [1, 0]], np.int32)}, want=lambda **_: X[[0, 1], [2, 0]]),
    Case(
        "gather_nd",
        {"x": X, "indices": np.array([[[1, 0]], [[2, 3]]], np.int32), "batch_dims": 1},
        want=lambda **_: np.stack([X[0, [1], [0]], X[1, [2], [3]]]),
    ),
    Case(
        "one_hot", {"indices": np.array([[0, 2], [1, 1]], np.int32), "one_hot_vector_size": 3}, want=lambda **_: ONE_HOT
    ),
    Case(
        "one_hot",
        {
            "indices": np.array([[0, 2], [1, 1]], np.int32),
            "one_hot_vector_size": 3,
            "axis": 1,
            "on_value": np.float32(2.5),
            "off_value": np.float32(-1.0),
        },
        want=lambda **_: np.moveaxis(np.where(ONE_HOT == 1, 2.5, -1.0), -1, 1),
    ),
    Case("argsort", {"x": RANKS}),
    Case("argsort", {"x": RANKS, "axis": 1, "ascending": True}),
    Case("topk", {"x": RANKS, "k": 2}),
    Case("topk", {"x": RANKS, "k": 3, "axis": 0, "ascending": True}),
    Case("topk", {"x": RANKS, "k": 4, "axis": 1, "output_indices_dtype": "uint16"}),
    Case("topk", {"x": RANKS, "k": 1, "return_indices": False}),
    Case("fill", {"shape": [2, 3], "value": np.float32(1.5)}),
    Case("fill", {"shape": [2, 3], "value": np.int32(-4)}),
    Case("fill", {"shape": [4]}),
    Case("fill_like", {"ref_tensor": X, "value": np.int32(7)}),
    Case("range_1d", {"start": np.float32(0.5), "end": np.float32(3.5), "step": np.float32(0.75)}),
    Case("range_1d", {"start": np.int32(5), "end": np.int32(-2), "step": np.int32(-2)}),
    Case("range_1d", {"start": np.int32(0), "end": np.int32(7), "step": np.int32(3)}),
    Case("shape", {"x": X}),
]
ONE_HOT = np.array([[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]]])
