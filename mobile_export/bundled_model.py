"""BundledModel: what a bundle's manifest says of its model, as far as sampling needs it; its artifacts on demand."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import diffusers
import numpy as np

from correction import CheckFailed, Denoiser
from mobile_export.backends import get_backend
from mobile_export.backends.artifact import SAMPLE, TIMESTEP, Artifact, ArtifactDenoiser
from mobile_export.bundle import Bundle
from mobile_export.models.diffusion_model import GUIDANCE, LABELS
from mobile_export.models.latents import Latents
from mobile_export.models.text import TextSide
from mobile_export.text_files import TOKENIZER


class BundledModel:
    """The model of one part of a bundle, for the functions of `models.reference`; attributes as DiffusionModel's.

    Raises UsageError when the bundle lacks the target.
    """

    def __init__(self, bundle: Bundle, target: str) -> None:
        self.bundle, self.target = bundle, target
        self.signature = bundle.signature(target)
        model, sample, image = (bundle.manifest[key] for key in ("model", "sample", "image"))
        self.name: str = bundle.name
        self.pipeline: str = model["pipeline"]
        self.classes = tuple(model["classes"])
        self.null_label: int | None = model["null_label"]
        self.scheduler_config: dict[str, Any] = model["scheduler_config"]
        self.sample_shape = (sample["channels"], sample["height"], sample["width"])
        self.image_shape = (image["channels"], image["height"], image["width"])

    @property
    def conditioning(self) -> dict[str, np.ndarray]:
        """An example of each input of the UNet besides sample and timestep."""
        ports = [port for port in self.signature.inputs if port.name not in (SAMPLE, TIMESTEP)]
        return {port.name: np.zeros(port.shape, port.type) for port in ports}

    @property
    def conditional(self) -> bool:
        return LABELS in self.conditioning

    @property
    def guided_by_input(self) -> bool:
        return GUIDANCE in self.conditioning

    @cached_property
    def latents(self) -> Latents | None:
        content = self.bundle.manifest["latents"]
        return None if content is None else Latents(**content)

    @cached_property
    def text(self) -> TextSide | None:
        content = self.bundle.manifest["text"]
        if content is None:
            return None
        sizes = {key: content[key] for key in ("max_length", "width", "vocabulary")}
        return TextSide(self.bundle.path / TOKENIZER, **sizes)

    def scheduler(self) -> Any:
        """The diffusers scheduler of the model, made anew. Raises CheckFailed for one that diffusers does not have."""
        name = self.bundle.manifest["model"]["scheduler"]
        kind = getattr(diffusers, name, None)
        if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
            raise CheckFailed(f"{self.bundle.path}: its scheduler is {name!r}, which diffusers does not have")
        return kind.from_config(self.scheduler_config)  # type: ignore[attr-defined]

    def artifact(self, name: str) -> Artifact:
        """One artifact, loaded now. Raises UsageError when the part lacks it."""
        path, signature = self.bundle.artifact(self.target, name), self.bundle.signature(self.target, name)
        return get_backend(self.target).load(path, signature)

    def denoiser(self) -> Denoiser:
        """The UNet's artifact, without guidance."""
        return ArtifactDenoiser(self.artifact("unet"))
