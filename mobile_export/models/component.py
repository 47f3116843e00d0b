"""Component: one network of a model, which becomes one artifact, and the signature of that artifact."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from correction.errors import UsageError

COMPONENTS = ("unet", "text_encoder", "vae_decoder", "vae_encoder")  # by the names of their artifacts
TYPES = {"float32": torch.float32, "int32": torch.int32, "int64": torch.int64}
MAX_SIZE = 2**31 - 1


@dataclass(frozen=True)
class Port:
    """An input or output of an artifact. type: a key of TYPES. Raises UsageError for other types and sizes below 1."""

    name: str
    shape: tuple[int, ...]
    type: str

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise UsageError(f"{self.name}: unknown type {self.type!r}: choose one of {', '.join(TYPES)}")
        if not all(type(size) is int and 1 <= size <= MAX_SIZE for size in self.shape):
            raise UsageError(f"{self.name}: sizes must be 1 to {MAX_SIZE}, got {list(self.shape)}")

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> Port:
        """The port that takes tensors like this one."""
        return cls(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def __str__(self) -> str:
        return f"{self.name} {self.type} {list(self.shape)}"


@dataclass(frozen=True)
class Signature:
    """What an artifact takes, in the order of its inputs, and what it gives. The first axis of each is a batch of 1."""

    inputs: tuple[Port, ...]
    output: Port

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Signature:
        """The inverse of dataclasses.asdict, from JSON."""
        ports = [Port(p["name"], tuple(p["shape"]), p["type"]) for p in (*content["inputs"], content["output"])]
        return cls(tuple(ports[:-1]), ports[-1])


@dataclass(frozen=True)
class Component:
    """One network of a model.

    name: one of COMPONENTS; network: float32, in evaluation mode, called with `inputs` by keyword, gives a tensor or a
    tuple that begins with it (a forward that has return_dict gets return_dict=False); inputs: an example of each
    input by name, batch 1, distinct tensors; output: name of the result; model, digest: name and sha256 of the model
    that it belongs to.
    """

    name: str
    network: nn.Module
    inputs: Mapping[str, Tensor]
    output: str
    model: str = ""
    digest: str = ""

    @property
    def parameters(self) -> int:
        """How many numbers the network has."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @cached_property
    def result(self) -> Port:
        """What the network gives for its example inputs, found by running it once."""
        with torch.inference_mode():
            return Port.of(self.output, call_network(self.network, self.inputs))


def call_network(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The network's result for inputs by keyword: the tensor that it returns, or the first of its tuple."""
    named = "return_dict" in inspect.signature(network.forward).parameters
    result = network(**inputs, **({"return_dict": False} if named else {}))
    return result[0] if isinstance(result, tuple) else result
