"""Timestep-aware correction of quantized diffusion models: sampling plans, the device loop, calibration and the file.

Usable alone, with numpy and safetensors. Only `correction.schedulers` needs torch and diffusers, so import it by name:
`from correction.schedulers import make_plan`. docs/method.md explains the method, docs/correction-format.md the file.
"""

from correction.errors import (
    CheckFailed,
    FormatError,
    NonFiniteError,
    NotLinearError,
    ProjectError,
    TableError,
    UsageError,
)
from correction.guidance import GuidedDenoiser
from correction.loop import Denoiser, sample
from correction.noise import STREAMS, initial_noise, step_noise, step_noises
from correction.plan import SamplingPlan
from correction.tables import Correction

__all__ = [
    "STREAMS",
    "CheckFailed",
    "Correction",
    "Denoiser",
    "FormatError",
    "GuidedDenoiser",
    "NonFiniteError",
    "NotLinearError",
    "ProjectError",
    "SamplingPlan",
    "TableError",
    "UsageError",
    "initial_noise",
    "sample",
    "step_noise",
    "step_noises",
]
