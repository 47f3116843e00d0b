"""Budget: the recipe that spends so many bytes where the network's output gains most by them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from correction import UsageError
from mobile_export.backends.artifact import SAMPLE, TIMESTEP
from mobile_export.batch import run
from mobile_export.models.component import call_network
from mobile_export.models.diffusion_model import TorchDenoiser
from mobile_export.part import Job
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.precision import Precision
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.sensitivity import LayerSensitivity, estimated_bytes, layer_sensitivities, within_budget
from mobile_export.quantize.table import quantize_layers

HIGH_BITS = 8
PROBED_STEPS, PROBED_SAMPLES = 10, 2
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class BudgetRecipe:
    """recipe: the choice; sensitivities: of each layer that could have more bits; estimate: bytes of an artifact."""

    recipe: Recipe
    sensitivities: Sequence[LayerSensitivity]
    estimate: int


def parse_bytes(text: str) -> int:
    """ "3.5MB" -> 3,500,000. Units: B, kB, MB, GB, KiB, MiB, GiB. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text)
    if match is None or match[2] not in _UNITS:
        raise UsageError(f"a size looks like 3.5MB ({', '.join(filter(None, _UNITS))}), got {text!r}")
    return round(float(match[1]) * _UNITS[match[2]])


def budget_recipe(job: Job, budget: int) -> BudgetRecipe:
    """The recipe of the job's settings, with 8 bits for as many of the layers that need them as `budget` bytes allow.

    The layers are judged on the network's own outputs along trajectories of the reference. Raises UsageError when not
    even the recipe itself fits.
    """
    model, settings, progress = job.model, job.settings, job.progress
    recipe = settings.recipe
    first = settings.calibration_samples
    batch = job.batch(range(first, first + settings.range_samples))
    progress.stage("load unet")
    unet = model.component("unet")
    reference = job.guided(TorchDenoiser(unet.network))
    chosen = set(np.linspace(0, job.plan.steps - 1, PROBED_STEPS).round().astype(int).tolist())
    few = batch.rows(slice(0, PROBED_SAMPLES))
    probes: list[dict[str, Tensor]] = []

    def keep(i: int, x: np.ndarray, _m: np.ndarray, _y: np.ndarray) -> None:
        if i in chosen:
            time = np.full((PROBED_SAMPLES,), job.plan.timestep[i], np.float32)
            arrays = {SAMPLE: job.plan.input_scale[i] * x[:PROBED_SAMPLES], TIMESTEP: time, **few.conditioning}
            probes.append({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})
        progress.advance(i + 1, job.plan.steps)

    def sample() -> None:
        run(job.plan, reference, batch, on_step=keep)

    progress.stage(f"what the layers see, on {settings.range_samples} trajectories")
    observations = observe_layers(unet.network, sample, recipe)
    progress.stage(f"round to {recipe.precision.name}, and to {HIGH_BITS} bits")
    low = quantize_layers(unet.network, observations, recipe, progress.advance)
    more = Precision(HIGH_BITS, recipe.precision.activation_bits)
    high = quantize_layers(unet.network, observations, replace(Recipe.of(more.name), layers=recipe.layers))
    spare = budget - estimated_bytes(unet.network, low)
    within_budget(recipe, (), spare, HIGH_BITS)  # before the work
    progress.stage("what each layer loses by fewer bits")

    def call(inputs: dict[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            return call_network(unet.network, inputs)

    calls = [lambda inputs=inputs: call(inputs) for inputs in probes]
    found = layer_sensitivities(unet.network, low, high, calls, progress.advance)
    chosen_recipe = within_budget(recipe, found, spare, HIGH_BITS)
    given = sum(each.bytes for each in found if chosen_recipe.layer(each.name).bits == HIGH_BITS)
    return BudgetRecipe(chosen_recipe, found, budget - spare + given)
