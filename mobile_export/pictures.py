"""Pictures: float images in [-1, 1] to bytes and to one tiled picture."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from correction.errors import UsageError

CHANNELS = (1, 3)


class PictureError(UsageError):
    """An array is not a batch of grayscale or RGB images in [-1, 1]."""


def to_uint8(images: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Float values in [-1, 1] to bytes: clamp to [-1, 1], then round (x + 1) * 127.5 half to even, in float64.

    -1 gives 0, 1 gives 255 and 0 (127.5) gives 128. Values outside the range are clamped, never wrapped.

    Args:
        images: any shape, real numbers.

    Returns:
        the same shape, uint8.

    Raises:
        PictureError: a value is NaN or infinite, or the array does not hold real numbers.
    """
    array = np.asarray(images)
    if array.dtype.kind not in "fiu":
        raise PictureError(f"Expected an array of real numbers in [-1, 1], got dtype {array.dtype}.")
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        bad = int(np.size(values) - np.isfinite(values).sum())
        raise PictureError(f"Expected finite pixel values, got {bad} NaN or infinite of {values.size}.")
    scaled: npt.NDArray[np.float64] = np.rint((np.clip(values, -1.0, 1.0) + 1.0) * 127.5)
    return scaled.astype(np.uint8)


def image_grid(images: npt.ArrayLike, columns: int, gap: int = 0) -> Image.Image:
    """Tile images row by row into one picture, pixel for pixel (no scaling).

    Args:
        images: (N, C, H, W) in [-1, 1], N >= 1, C = 1 (grayscale) or 3 (RGB).
        columns: pictures in a row, >= 1; the last row may be shorter.
        gap: transparent pixels between neighbours, >= 0.

    Returns:
        an RGBA picture; gaps and missing cells are transparent.

    Raises:
        PictureError: the shape, the channel count, `columns` or `gap` is not allowed.
    """
    array = np.asarray(images)
    if array.ndim != 4 or 0 in array.shape:
        raise PictureError(f"Expected images of shape (N, C, H, W), none of them 0, got {array.shape}.")
    count, channels, height, width = array.shape
    if channels not in CHANNELS:
        raise PictureError(
            f"Expected 1 (grayscale) or 3 (RGB) channels in (N, C, H, W), got {channels} in {array.shape}. "
            "Latents must be decoded first."
        )
    if columns < 1 or gap < 0:
        raise PictureError(f"Expected columns >= 1 and gap >= 0, got columns {columns} and gap {gap}.")
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    for index, pixels in enumerate(to_uint8(array).transpose(0, 2, 3, 1)):  # (H, W, C)
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        canvas[top : top + height, left : left + width, :3] = pixels  # one channel is broadcast to three
        canvas[top : top + height, left : left + width, 3] = 255
    return Image.fromarray(canvas)


def save_grid(path: Path, images: npt.ArrayLike, columns: int | None = None, scale: int = 3) -> None:
    """Write a grid as PNG, each pixel as `scale` x `scale`; whole or not at all.

    images: as in `image_grid`; columns: by default what makes the grid roughly square. Raises UsageError
    when the folder does not exist.
    """
    if not path.parent.is_dir():
        raise UsageError(f"the folder {str(path.parent)!r} of the picture does not exist")
    grid = image_grid(images, columns or math.ceil(math.sqrt(len(np.asarray(images)))), gap=1)
    partial = path.with_name(f".{path.name}.partial")
    grid.resize((grid.width * scale, grid.height * scale), Image.Resampling.NEAREST).save(partial, format="PNG")
    os.replace(partial, path)


def read_picture(path: Path, height: int, width: int) -> npt.NDArray[np.float32]:
    """A picture file as (1, 3, height, width) float32 in [-1, 1], cut to that shape in the middle and scaled.

    Raises UsageError for a file that is no picture.
    """
    try:
        with Image.open(path) as picture:
            fitted = ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    except (OSError, Image.DecompressionBombError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as a picture ({error})") from error
    values = np.asarray(fitted, dtype=np.float32).transpose(2, 0, 1)[None] / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(values)
