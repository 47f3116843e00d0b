"""NamedUNet: a UNet of anybody's, called by the names that components use."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from torch import Tensor, nn


class NamedUNet(nn.Module):
    """Takes sample and timestep by name where the network takes them by position, and gives a tensor.

    The network returns a tensor, a tuple that begins with it, or an object with the tensor as `sample`. Its layers have
    their own names with "network." before them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, sample: Tensor, timestep: Tensor, **conditioning: Tensor) -> Tensor:
        """sample (B, C, H, W), timestep (B,), conditioning by name -> (B, C, H, W)."""
        result = self.network(sample, timestep, **conditioning)
        if isinstance(result, tuple):
            return result[0]
        return result if isinstance(result, Tensor) else result.sample


def takes_names(network: nn.Module, conditioning: Iterable[str]) -> bool:
    """Whether the network's own first inputs are called sample and timestep, and it names what it is conditioned on."""
    names = list(inspect.signature(network.forward).parameters)
    return names[:2] == ["sample", "timestep"] and set(conditioning) <= set(names)
