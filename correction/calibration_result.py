"""What a calibration found: the correction, how sure it is, and what it did to held-out samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from correction.plan import SamplingPlan
from correction.strength import Strength
from correction.tables import Correction


@dataclass(frozen=True)
class StepStatistics:
    """Errors against the reference, in units of the sample squared.

    Each is the geometric mean over samples of their mean squared errors, that is, their mean in decibels: one
    trajectory that turned into another picture does not outvote the rest.

    Attributes:
        step, timestep: which step.
        kept_input, kept_output: what was kept; False is identity.
        error_none, error_input, error_both: of held-out samples after this step, from the same corrected sample
            before it, with nothing, the input correction, and both; NaN where there was no such candidate.
        trajectory_with, trajectory_without: of all samples after this step, on the trajectory corrected so far, and on
            the one never corrected.
    """

    step: int
    timestep: float
    kept_input: bool
    kept_output: bool
    error_none: float
    error_input: float
    error_both: float
    trajectory_with: float
    trajectory_without: float


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """The correction and how sure it is.

    Attributes:
        correction: to be written to the file.
        standard_errors: per table name, [T, C] float64, by the jackknife; 0 where the identity was kept, NaN where
            there were fewer than two fitting samples.
        statistics: one entry per step.
        kept: [T, 2] bool: input and output correction of each step.
        dropped: True if the whole correction was dropped, because it did not help at the end.
        plan: what to sample with; the plan that was given, but for less fresh noise where the method takes some away.
        strength: how much of either half of what was solved is in the correction, where the method is tuned.
    """

    correction: Correction
    standard_errors: Mapping[str, np.ndarray]
    statistics: tuple[StepStatistics, ...]
    kept: np.ndarray
    dropped: bool
    plan: SamplingPlan
    strength: Strength = field(default_factory=Strength)
