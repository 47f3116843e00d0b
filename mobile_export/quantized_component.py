"""QuantizedComponent: a component with all of its integers, found on inputs from its real use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from correction import Denoiser, SamplingPlan
from mobile_export.backends.artifact import SAMPLE, TIMESTEP
from mobile_export.backends.backend import Probe
from mobile_export.batch import Batch, run
from mobile_export.models.component import Component, Port, call_network
from mobile_export.progress import Progress
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable, quantize_layers


@dataclass(frozen=True)
class QuantizedComponent:
    """probes: inputs on which its artifacts are compared with it; origin: digest of what these came from."""

    component: Component
    table: QuantizationTable
    probes: Sequence[Probe]
    origin: str = ""

    def forget_floats(self) -> None:
        """Let go of the float weights that have integers now, in the component's own network: it cannot run any more.

        Artifacts and the quantized model are made of the integers; a large network is not in memory twice so.
        """
        for name in self.table.layers:
            layer = self.component.network.get_submodule(name)
            empty = torch.empty(layer.get_parameter("weight").shape, device="meta")
            layer.weight = nn.Parameter(empty, requires_grad=False)
        for tensor in (*self.component.network.parameters(), *self.component.network.buffers()):
            tensor.data = tensor.data.clone()  # a view of a file keeps the whole file in memory


def quantize_unet(
    component: Component,
    recipe: Recipe,
    plan: SamplingPlan,
    reference: Denoiser,
    batch: Batch,
    origin: str,
    progress: Progress,
) -> tuple[QuantizedComponent, np.ndarray]:
    """The UNet with its integers, a probe for each step, and the samples (B, C, H, W) that the trajectories ended in.

    reference: a denoiser that runs the component's own network, guidance included, so that its layers see what they
    see in use; batch: the trajectories. The probes are those of the first sample.
    """
    progress.stage(f"quantize to {recipe.precision.name}: activation ranges on {len(batch.noise)} trajectories")
    probes: list[Probe] = []
    first = {name: array[:1] for name, array in batch.conditioning.items()}

    def observe(i: int, x: np.ndarray, _m: np.ndarray, _y: np.ndarray) -> None:
        time = np.full((1,), plan.timestep[i], dtype=np.float32)
        sample = (plan.input_scale[i] * x[:1]).astype(np.float32)
        probes.append(Probe({SAMPLE: sample, TIMESTEP: time, **first}, float(plan.timestep[i])))
        progress.advance(i + 1, plan.steps)

    ends: list[np.ndarray] = []

    def sample() -> None:
        ends.append(run(plan, reference, batch, on_step=observe))

    observations = observe_layers(component.network, sample, recipe)
    progress.stage(f"quantize to {recipe.precision.name}: weights of the unet")
    table = quantize_layers(component.network, observations, recipe, progress.advance)
    return QuantizedComponent(component, table, probes, origin), ends[0]


def quantize_network(
    component: Component, recipe: Recipe, probes: Sequence[Probe], progress: Progress
) -> tuple[QuantizedComponent, list[np.ndarray]]:
    """Another component with its integers, observed on the probes; and what the float network gives for each probe."""
    progress.stage(f"quantize {component.name} to {recipe.precision.name}")
    results: list[np.ndarray] = []

    def observe() -> None:
        for probe in probes:
            inputs = probe.tensors(Port.of(name, tensor) for name, tensor in component.inputs.items())
            results.append(call_network(component.network, inputs).numpy())
            progress.advance(len(results), len(probes))

    observations = observe_layers(component.network, observe, recipe)
    progress.stage(f"quantize {component.name} to {recipe.precision.name}: weights")
    table = quantize_layers(component.network, observations, recipe, progress.advance)
    return QuantizedComponent(component, table, probes), results
