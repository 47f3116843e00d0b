"""Resizing, padding and cropping of the last axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_export.coreml_simulator.errors import UnsupportedError
from mobile_export.coreml_simulator.ops.padding import pad_spatial
from mobile_export.coreml_simulator.ops.registry import Ints, op

SAMPLING_MODES = ("DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "OFFSET_CORNERS", "UNALIGN_CORNERS")


@op("upsample_nearest_neighbor", exact=True, leads=True)
def upsample_nearest_neighbor(x: Tensor, *, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Tensor:
    """Every value becomes a block; whole factors only."""
    if scale_factor_height % 1 or scale_factor_width % 1:
        raise UnsupportedError(
            f"scale factors {scale_factor_height} and {scale_factor_width}; supported are whole numbers"
        )
    down, right = int(scale_factor_height), int(scale_factor_width)
    *lead, height, width = x.shape
    blocks = x[..., :, None, :, None].expand(*lead, height, down, width, right)
    return blocks.reshape(*lead, height * down, width * right)


@op("resize_nearest_neighbor", exact=True, leads=True)
def resize_nearest_neighbor(x: Tensor, *, target_size_height: int, target_size_width: int) -> Tensor:
    """Row i of the result is row floor(i * rows / new rows), as in PyTorch; the same for columns."""
    for axis, size in ((-2, target_size_height), (-1, target_size_width)):
        x = x.index_select(axis, torch.arange(size) * x.shape[axis] // size)
    return x


@op("upsample_bilinear", leads=True)
def upsample_bilinear(
    x: Tensor,
    *,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """The new size is floor(size * factor), and the grid is made for that size.

    half_pixel_centers is by default the opposite of align_corners; False for both is TensorFlow 1's grid.
    """
    half = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and half:
        raise UnsupportedError("align_corners and half_pixel_centers are both true; at most one may be")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half else "START_CORNERS"
    sizes = (int(x.shape[-2] * scale_factor_height), int(x.shape[-1] * scale_factor_width))
    return _resize(x, sizes, mode)


@op("resize_bilinear", leads=True)
def resize_bilinear(
    x: Tensor, *, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    return _resize(x, (target_size_height, target_size_width), _known(sampling_mode))


@op("resize", leads=True)
def resize(
    x: Tensor,
    *,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """The last resized_dims axes take the last numbers of shape, where 0 keeps the size."""
    if interpolation_mode != "LINEAR":
        raise UnsupportedError(f"interpolation_mode {interpolation_mode!r}; supported is LINEAR")
    old = x.shape[x.dim() - resized_dims :]
    new = shape[len(shape) - resized_dims :]
    return _resize(x, [n or o for n, o in zip(new, old, strict=True)], _known(sampling_mode))


@op("pad", exact=True)
def pad(x: Tensor, *, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """pad: (before, after) for each of the last len(pad) / 2 axes."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return pad_spatial(x, pairs, constant_val)
    if mode not in ("reflect", "replicate"):
        raise UnsupportedError(f"mode {mode!r}; supported are constant, reflect, replicate")
    # Axis by axis, as [1, all others, this axis]: PyTorch has these modes for spatial axes only.
    for axis, (before, after) in zip(range(x.dim() - len(pairs), x.dim()), pairs, strict=True):
        if before or after:
            rows = x.movedim(axis, -1)
            padded = F.pad(rows.reshape(1, -1, rows.shape[-1]), (before, after), mode=mode)
            x = padded.reshape(*rows.shape[:-1], -1).movedim(-1, axis)
    return x


@op("crop", exact=True, leads=True)
def crop(x: Tensor, *, crop_height: Ints, crop_width: Ints) -> Tensor:
    """Cut (before, after) off the last two axes."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _known(sampling_mode: str) -> str:
    if sampling_mode not in SAMPLING_MODES:
        raise UnsupportedError(f"sampling_mode {sampling_mode!r}; supported are {', '.join(SAMPLING_MODES)}")
    return sampling_mode


def _resize(x: Tensor, sizes: Sequence[int], mode: str) -> Tensor:
    """Linear interpolation of the last len(sizes) axes, one after the other."""
    for axis, size in zip(range(-len(sizes), 0), sizes, strict=True):
        old = x.shape[axis]
        if size == old and mode != "OFFSET_CORNERS":
            continue
        grid = np.clip(_grid(mode, old, size), 0, old - 1)
        low = np.floor(grid).astype(np.int64)
        weight = torch.from_numpy((grid - low).astype(np.float32)).reshape((-1,) + (1,) * (-1 - axis))
        first = x.index_select(axis, torch.from_numpy(low))
        second = x.index_select(axis, torch.from_numpy(np.minimum(low + 1, old - 1)))
        x = first + (second - first) * weight
    return x


def _grid(mode: str, old: int, new: int) -> np.ndarray:
    """Where the new points lie on the old axis [0, old - 1], by the formulas of MIL's resize_bilinear."""
    i = np.arange(new, dtype=np.float64)
    if mode == "UNALIGN_CORNERS":
        return (i + 0.5) * old / new - 0.5
    if mode == "OFFSET_CORNERS":
        return (i + 0.5) * max(1, old - 1) / new
    if mode == "START_CORNERS":
        return i * old / new
    if new == 1:
        return np.array([(old - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0])
    return i * ((old - old / new) if mode == "DEFAULT" else (old - 1)) / (new - 1)
