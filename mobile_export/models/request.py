"""Request: which images are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from correction.errors import UsageError
from mobile_export.models.noise_source import NOISES


@dataclass(frozen=True, eq=False)
class Request:
    """Images of one call of a pipeline, all in one batch.

    prompts: one for each image, for a model with a text encoder; labels: one for each image, for a class-conditional
    model; count: how many images of a model with neither; negative_prompt: what guidance leads away from, for all
    prompts; seed: of the noise, 0 to 2^63 - 1; steps: 1 or more; guidance: scale of classifier-free guidance, 1 for
    none; sampler: a name of correction.schedulers.SAMPLERS, or None for the pipeline's own scheduler, which takes
    eta, 0 to 1, where its step does; spacing: of the timesteps, None for what the scheduler's configuration says;
    image: (1 or N, C, H, W) float32 in [-1, 1] to start from, or None; strength: above 0, at most 1, the share of the
    steps that is done from the image on; noise: "philox", the project's own, or "torch", which gives the image that
    the diffusers pipeline makes of a generator with this seed.

    Raises UsageError for other values.
    """

    prompts: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    count: int = 1
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 20
    guidance: float = 1.0
    sampler: str | None = None
    eta: float = 0.0
    spacing: str | None = None
    image: np.ndarray | None = None
    strength: float = 0.8
    noise: str = "philox"

    def __post_init__(self) -> None:
        if self.prompts and self.labels:
            raise UsageError("give prompts or labels, not both")
        if self.count < 1:
            raise UsageError(f"the number of images must be at least 1, got {self.count}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"the seed must be 0 to 2^63 - 1, got {self.seed}")
        if not math.isfinite(self.guidance) or self.guidance < 0:
            raise UsageError(f"guidance must be finite and at least 0, got {self.guidance!r}")
        if self.sampler is not None and self.eta:
            raise UsageError(f"eta is a part of the named sampler {self.sampler!r}, got eta {self.eta!r}")
        if not 0 < self.strength <= 1:
            raise UsageError(f"strength must be above 0 and at most 1, got {self.strength!r}")
        if self.noise not in NOISES:
            raise UsageError(f"unknown noise {self.noise!r}: choose one of {', '.join(NOISES)}")
        self._check_image()

    @property
    def samples(self) -> int:
        """How many images N."""
        return len(self.prompts) or len(self.labels) or self.count

    def _check_image(self) -> None:
        image = self.image
        if image is None:
            return
        if image.dtype != np.float32 or image.ndim != 4 or len(image) not in (1, self.samples):
            wanted = f"float32 of shape (1 or {self.samples}, C, H, W)"
            raise UsageError(f"the image must be {wanted}, got {image.dtype} {image.shape}")
        if not np.abs(image).max(initial=0.0) <= 1:
            raise UsageError("the image must have values from -1 to 1")
