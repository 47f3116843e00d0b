"""The state that a function keeps between calls."""

from __future__ import annotations

from torch import Tensor

from mobile_export.coreml_simulator.ops.registry import op


@op("read_state", leads=True, exact=True)
def read_state(input: Tensor) -> Tensor:
    return input


@op("write_state", leads=True, exact=True, element="data")
def write_state(input: Tensor, data: Tensor) -> Tensor:
    """Returns the state's new value, which the simulator puts in the place of `input`."""
    return data
