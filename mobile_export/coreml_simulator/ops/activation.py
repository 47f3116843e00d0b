"""Activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_export.coreml_simulator.errors import UnsupportedError
from mobile_export.coreml_simulator.ops.registry import op


@op("relu", leads=True, exact=True)
def relu(x: Tensor) -> Tensor:
    return torch.relu(x)


@op("relu6", leads=True, exact=True)
def relu6(x: Tensor) -> Tensor:
    return torch.clamp(x, 0, 6)


@op("clamped_relu", leads=True)
def clamped_relu(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    return torch.clamp(torch.where(x >= 0, x, alpha * x), max=beta)


@op("leaky_relu", leads=True)
def leaky_relu(x: Tensor, *, alpha: float) -> Tensor:
    return F.leaky_relu(x, alpha)


@op("thresholded_relu", leads=True, exact=True)
def thresholded_relu(x: Tensor, *, alpha: float) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


@op("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """alpha: [C], one slope for each channel of axis 1."""
    return torch.where(x > 0, x, x * _channels(alpha, x))


@op("elu", leads=True)
def elu(x: Tensor, *, alpha: float) -> Tensor:
    return F.elu(x, alpha)


@op("gelu", leads=True)
def gelu(x: Tensor, *, mode: str = "EXACT") -> Tensor:
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise UnsupportedError(f"mode {mode!r}; supported are EXACT, TANH_APPROXIMATION, SIGMOID_APPROXIMATION")


@op("silu", leads=True)
def silu(x: Tensor) -> Tensor:
    return F.silu(x)


@op("sigmoid", leads=True)
def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@op("sigmoid_hard", leads=True)
def sigmoid_hard(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


@op("tanh", leads=True)
def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


@op("scaled_tanh", leads=True)
def scaled_tanh(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(beta * x)


@op("linear_activation", leads=True)
def linear_activation(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    return alpha * x + beta


@op("softplus", leads=True)
def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-torch.abs(x))) + torch.relu(x)


@op("softplus_parametric")
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha, beta: [C], one for each channel of axis 1."""
    return _channels(alpha, x) * softplus(x * _channels(beta, x))


@op("softsign", leads=True)
def softsign(x: Tensor) -> Tensor:
    return x / (1 + torch.abs(x))


@op("softmax")
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def _channels(vector: Tensor, x: Tensor) -> Tensor:
    """[C] -> [1, C, 1, ...], as many axes as x has."""
    return vector.reshape((1, -1) + (1,) * (x.dim() - 2))
