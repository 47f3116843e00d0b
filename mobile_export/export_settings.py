"""ExportSettings: what an export makes of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from correction import UsageError
from correction.methods import find_method
from mobile_export.backends import BACKENDS, get_backend
from mobile_export.backends.backend import BackendOptions
from mobile_export.quantize.recipe import Recipe


@dataclass(frozen=True)
class ExportSettings:
    """What `export` makes of a model.

    recipe: what the layers become; sampler: a name of correction.schedulers.SAMPLERS; steps: 1 to
    4096; guidance: 1 is none; method: a name of correction.methods.METHODS; calibration_samples:
    trajectories the correction is solved on, a quarter of them held out; range_samples: reference
    trajectories on which the activation ranges are fitted; targets: names of backends, each gives a
    part of the bundle; none stands for all that can have the recipe; options: for the backends.
    Raises UsageError for values out of range, for a target that does not exist, and for one that
    cannot have the recipe.
    """

    recipe: Recipe
    sampler: str = "ddim"
    steps: int = 50
    guidance: float = 1.0
    method: str = "tac"
    calibration_samples: int = 48
    range_samples: int = 12
    seed: int = 0
    targets: tuple[str, ...] = ()
    options: BackendOptions = field(default_factory=BackendOptions)

    def __post_init__(self) -> None:
        find_method(self.method)
        for name, low, high in (("steps", 1, 4096), ("calibration_samples", 4, 4096), ("range_samples", 1, 4096)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name.replace('_', ' ')} must be {low} to {high}, got {value}")
        if not (np.isfinite(self.guidance) and 0 < self.guidance <= 100):
            raise UsageError(f"guidance must be above 0 and at most 100, got {self.guidance}")
        object.__setattr__(self, "targets", _targets(self.recipe, self.targets, self.options))


def _targets(recipe: Recipe, wanted: Sequence[str], options: BackendOptions) -> tuple[str, ...]:
    """The wanted targets, each once, or else all that can have the recipe."""
    for name in wanted:
        get_backend(name, options).require_supported(recipe)
    if wanted:
        return tuple(dict.fromkeys(wanted))
    found, reasons = [], []
    for name in BACKENDS:
        try:
            get_backend(name, options).require_supported(recipe)
            found.append(name)
        except UsageError as error:
            reasons.append(str(error))
    if not found:
        raise UsageError("; ".join(reasons))
    return tuple(found)
