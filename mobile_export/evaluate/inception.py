"""Inception-v3's features, those of the FID that papers report, where its weights have been put on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from correction.errors import UsageError
from mobile_export.evaluate.feature_network import FeatureNetwork

FEATURES = 2048
_BATCH = 32


def inception(weights: Path) -> FeatureNetwork:
    """torch-fidelity's Inception-v3 (Heusel et al. 2017, arXiv 1706.08500) with weights of its form, a `.pth` file.

    Nothing is downloaded, and no code in the file is run. Raises UsageError where torch-fidelity is not installed and
    where the file is something else.
    """
    try:
        library = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise UsageError(
            f"Inception needs torch-fidelity and torchvision ({error}): pip install 'mobile-export[fid]'"
        ) from error
    with _plain(weights) as path:
        try:
            network = library.FeatureExtractorInceptionV3(
                "inception-v3-compat", [str(FEATURES)], feature_extractor_weights_path=str(path)
            )
        except (RuntimeError, TypeError) as error:
            raise UsageError(f"{weights} does not hold torch-fidelity's Inception-v3 ({error})") from error
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    return FeatureNetwork(f"Inception-v3 features ({digest})", FEATURES, lambda images: _features(network, images))


@contextlib.contextmanager
def _plain(weights: Path) -> Iterator[Path]:
    """The same tensors in a file that holds nothing else: torch-fidelity would unpickle whatever it is given."""
    try:
        tensors = torch.load(weights, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(f"{weights} cannot be read as weights ({type(error).__name__})") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(tensors, path)
        yield path


def _features(network: Any, images: np.ndarray) -> np.ndarray:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UsageError(f"features are of gray or colour images (N, 1 or 3, H, W), got {images.shape}")
    found = []
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            piece = torch.from_numpy(images[start : start + _BATCH]).float().clamp(-1, 1).expand(-1, 3, -1, -1)
            found.append(network((piece / 2 + 0.5).mul(255).round().to(torch.uint8))[0].float().numpy())
    return np.concatenate(found) if found else np.zeros((0, FEATURES), np.float32)
