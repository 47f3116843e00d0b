"""TorchDenoiser: a PyTorch UNet as a denoiser; TorchComponent: any component as a function of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from mobile_export.models.component import Component, call_network


class TorchDenoiser:
    """A PyTorch UNet as a denoiser over numpy arrays: (B, C, H, W) float32, timestep -> (B, C, H, W).

    Conditioning by the names of the UNet's inputs, B rows each: class_labels (B,) int64, encoder_hidden_states
    (B, S, D) float32, timestep_cond (B, E) float32.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet

    def __call__(self, sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
        time = np.full(len(sample), timestep, dtype=np.float32)
        return _run(self.unet, {"sample": sample, "timestep": time, **conditioning})


class TorchComponent:
    """A component's network as an artifact is called: inputs by name, B rows each -> (B, ...) float32."""

    def __init__(self, component: Component) -> None:
        self.component = component

    def __call__(self, **inputs: Any) -> np.ndarray:
        return _run(self.component.network, inputs)


def _run(network: nn.Module, inputs: dict[str, Any]) -> np.ndarray:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
    with torch.inference_mode():
        return call_network(network, tensors).numpy()
