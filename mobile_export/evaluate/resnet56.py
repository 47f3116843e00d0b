"""ResNet-56 for CIFAR-10: 64 features of a small picture, for Fréchet distances where Inception is out of reach."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from correction.errors import UsageError
from mobile_export.evaluate.feature_network import FeatureNetwork

NAME = "ResNet-56 features"
FEATURES = 64
_SIDE, _BATCH = 32, 64
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures that it was trained on


class _Block(nn.Module):
    """Two convolutions and what goes past them: every other pixel where it halves, zeros for new channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        past = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(past, (0, 0, 0, 0, self.more, self.more)))


class ResNet56(nn.Module):
    """He et al. 2016, "Deep residual learning", section 4.2, n = 9: what it knows before its last layer.

    The weights are a public classifier's (weights/resnet56-LICENSE). Call `resnet56_features`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16, 1) for _ in range(9)))
        self.layer2 = nn.Sequential(*(_Block(32 if k else 16, 32, 1 if k else 2) for k in range(9)))
        self.layer3 = nn.Sequential(*(_Block(64 if k else 32, 64, 1 if k else 2) for k in range(9)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32), normalised -> (N, 64)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


def load_resnet56() -> ResNet56:
    """With the weights that come with the package, in float32, to be evaluated."""
    network = ResNet56()
    with as_file(files("mobile_export.evaluate") / "weights" / "resnet56.safetensors") as path:
        network.load_state_dict(load_file(path), strict=False)  # how many batches a norm saw is not among them
    return network.float().eval()


def resnet56() -> FeatureNetwork:
    """The network that distances are of unless another is asked for."""
    network = load_resnet56()
    return FeatureNetwork(NAME, FEATURES, lambda images: resnet56_features(network, images))


def resnet56_features(network: ResNet56, images: np.ndarray) -> np.ndarray:
    """(N, 64) float32 of images (N, 1 or 3, H, W) in [-1, 1], clipped and scaled to 32 x 32; gray is all three colours.

    Raises UsageError for other shapes.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UsageError(f"features are of gray or colour images (N, 1 or 3, H, W), got {images.shape}")
    mean, deviation = (torch.tensor(v)[None, :, None, None] for v in (_MEAN, _DEVIATION))
    found = []
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            piece = torch.from_numpy(images[start : start + _BATCH]).float().clamp(-1, 1)
            if piece.shape[2:] != (_SIDE, _SIDE):
                piece = F.interpolate(piece, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False)
            coloured = piece.expand(-1, 3, -1, -1) / 2 + 0.5
            found.append(network((coloured - mean) / deviation).numpy())
    return np.concatenate(found) if found else np.zeros((0, FEATURES), np.float32)
