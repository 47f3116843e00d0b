"""Statistics of real pictures: from a file that has them, or of the pictures in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from correction.errors import UsageError
from mobile_export.evaluate.feature_network import FeatureNetwork
from mobile_export.evaluate.frechet import FeatureStatistics

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_BATCH = 64


def real_statistics(path: Path, network: FeatureNetwork, shape: tuple[int, int, int]) -> FeatureStatistics:
    """path: a file of statistics, or a folder of pictures; shape: (C, H, W) of the model's pictures, C 1 or 3.

    Raises UsageError for statistics of other features, for a folder with too few pictures, and for the first picture
    that cannot be read or has another size.
    """
    if path.is_dir():
        return _of_folder(path, network, shape)
    statistics = FeatureStatistics.load(path)
    if len(statistics.mean) != network.width:
        raise UsageError(f"{path} has {len(statistics.mean)} features a picture; {network.name} are {network.width}")
    return statistics


def _of_folder(folder: Path, network: FeatureNetwork, shape: tuple[int, int, int]) -> FeatureStatistics:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < network.enough:
        raise UsageError(f"{folder} has {len(paths)} pictures; a distance of {network.name} needs {network.enough}")
    return FeatureStatistics.of(np.concatenate([network.features(images) for images in _batches(paths, shape)]))


def _batches(paths: list[Path], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    for start in range(0, len(paths), _BATCH):
        yield np.stack([_image(path, shape) for path in paths[start : start + _BATCH]])


def _image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """(C, H, W) float32 in [-1, 1]."""
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32)
    except (OSError, UnidentifiedImageError) as error:
        raise UsageError(f"{path} cannot be read as a picture ({type(error).__name__})") from error
    if pixels.shape[:2] != (height, width):
        raise UsageError(
            f"{path} is {pixels.shape[1]} x {pixels.shape[0]}, the model's pictures are {width} x {height}"
        )
    return (pixels.reshape(height, width, channels).transpose(2, 0, 1) / 127.5 - 1).astype(np.float32)
