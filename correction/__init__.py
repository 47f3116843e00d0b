"""Timestep-aware correction of quantized diffusion models: sampling plans, the device loop, calibration and the file.

Usable alone, with numpy and safetensors. Only `correction.schedulers` needs torch and diffusers, so import it by name:
`from correction.schedulers import make_plan`. docs/method.md explains the method, docs/correction-format.md the file.
"""

from correction.calibrate import calibrate
from correction.calibration_result import CalibrationResult, StepStatistics
from correction.errors import (
    CheckFailed,
    FormatError,
    NonFiniteError,
    NotLinearError,
    ProjectError,
    TableError,
    UsageError,
)
from correction.file import CorrectionFile, encode_correction, read_correction, write_correction
from correction.guidance import GuidedDenoiser
from correction.loop import Denoiser, sample
from correction.methods import METHODS, Method, find_method
from correction.noise import STREAMS, initial_noise, step_noise, step_noises
from correction.plan import SamplingPlan
from correction.strength import Strength
from correction.tables import Correction

__all__ = [
    "METHODS",
    "STREAMS",
    "CalibrationResult",
    "CheckFailed",
    "Correction",
    "CorrectionFile",
    "Denoiser",
    "FormatError",
    "GuidedDenoiser",
    "Method",
    "NonFiniteError",
    "NotLinearError",
    "ProjectError",
    "SamplingPlan",
    "StepStatistics",
    "Strength",
    "TableError",
    "UsageError",
    "calibrate",
    "encode_correction",
    "find_method",
    "initial_noise",
    "read_correction",
    "sample",
    "step_noise",
    "step_noises",
    "write_correction",
]
