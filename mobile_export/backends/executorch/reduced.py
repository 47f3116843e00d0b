"""ReducedComponent: a UNet on smaller samples, for comparisons that would not fit into memory at its own size."""

from __future__ import annotations

from dataclasses import replace

import torch

from mobile_export.backends.artifact import SAMPLE
from mobile_export.backends.backend import Probe
from mobile_export.models.component import Component, Signature

REDUCTION = 4  # along each side
SMALLEST = 8  # a UNet halves its samples up to three times


def reduced_component(component: Component) -> Component | None:
    """The same network with an example sample of a quarter of the height and width; None where that is too small."""
    sample = component.inputs.get(SAMPLE)
    if sample is None or min(sample.shape[2:]) < SMALLEST * REDUCTION:
        return None
    height, width = (side // REDUCTION // SMALLEST * SMALLEST for side in sample.shape[2:])
    smaller = torch.zeros(1, sample.shape[1], height, width)
    return replace(component, inputs={**component.inputs, SAMPLE: smaller})


def reduced_probes(probes: list[Probe], signature: Signature) -> list[Probe]:
    """The probes with the upper left part of their samples, of the size in `signature`."""
    height, width = next(port.shape for port in signature.inputs if port.name == SAMPLE)[2:]
    return [replace(p, inputs={**p.inputs, SAMPLE: p.inputs[SAMPLE][:, :, :height, :width]}) for p in probes]
