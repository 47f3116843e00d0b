"""ExportSettings: what an export makes of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from correction import UsageError
from correction.methods import DEFAULT_METHOD, find_method
from mobile_export.backends import BACKENDS, get_backend
from mobile_export.backends.backend import BackendOptions
from mobile_export.models.component import COMPONENTS
from mobile_export.quantize.recipe import Recipe

WEIGHT_ONLY = Recipe.of("w8a16")
CONSISTENCY = {"LCMScheduler": "lcm", "TCDScheduler": "tcd"}


@dataclass(frozen=True)
class ExportSettings:
    """What `export` makes of a model.

    recipe: what the layers become; sampler: a name of correction.schedulers.SAMPLERS; steps: 1 to 4096 (None for both:
    see `sampling`); guidance: 1 is none; method: a name of correction.methods.METHODS; calibration_samples:
    trajectories the correction is solved on, a quarter of them held out; range_samples: reference trajectories on
    which the activation ranges are fitted; targets: names of backends, each gives a part of the bundle; none stands for
    all that can have the recipe; options: for the backends.

    Of models with text or latents: text_recipe, vae_recipe: what those networks become; prompts: their embeddings go
    into the bundle in place of a text encoder; negative_prompt: of guidance's other branch; image_to_image: take the
    autoencoder's other half along; latent_size: (height, width) of the latents, None for what the model says.
    Raises UsageError for values out of range, for a target that does not exist, and for one that
    cannot have the recipes.
    """

    recipe: Recipe
    sampler: str | None = None
    steps: int | None = None
    guidance: float = 1.0
    method: str = DEFAULT_METHOD
    calibration_samples: int = 48
    range_samples: int = 12
    seed: int = 0
    targets: tuple[str, ...] = ()
    options: BackendOptions = field(default_factory=BackendOptions)
    text_recipe: Recipe = WEIGHT_ONLY
    vae_recipe: Recipe = WEIGHT_ONLY
    prompts: tuple[str, ...] = ()
    negative_prompt: str = ""
    image_to_image: bool = False
    latent_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        find_method(self.method)
        for name, low, high in (("steps", 1, 4096), ("calibration_samples", 4, 4096), ("range_samples", 1, 4096)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name.replace('_', ' ')} must be {low} to {high}, got {value}")
        if not (np.isfinite(self.guidance) and 0 < self.guidance <= 100):
            raise UsageError(f"guidance must be above 0 and at most 100, got {self.guidance}")
        if self.latent_size is not None and not all(1 <= side <= 4096 for side in self.latent_size):
            raise UsageError(f"latent size must be 1 to 4096 each way, got {self.latent_size}")
        object.__setattr__(self, "targets", _targets(self.recipe, self.targets, self.options))

    def sampling(self, scheduler: str) -> tuple[str, int]:
        """(sampler, steps) for a model that came with this scheduler class of diffusers, where they were not chosen.

        A consistency model is drawn by its own sampler in 4 steps, every other by DDIM in 50.
        """
        sampler = self.sampler or CONSISTENCY.get(scheduler, "ddim")
        return sampler, self.steps or (4 if sampler in CONSISTENCY.values() else 50)


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


def components_of(model_has: Sequence[str], settings: ExportSettings) -> tuple[str, ...]:
    """Which of a model's components are exported."""
    left_out = set() if settings.image_to_image else {"vae_encoder"}
    if settings.prompts:
        left_out.add("text_encoder")
    if settings.image_to_image and "vae_encoder" not in model_has:
        raise UsageError("image to image needs a model with an autoencoder, which this one does not have")
    if settings.prompts and "text_encoder" not in model_has:
        raise UsageError("prompts need a model with a text encoder, which this one does not have")
    return tuple(name for name in COMPONENTS if name in model_has and name not in left_out)
