"""StudySettings: which samplers and corrections a study compares, and on how much noise."""

from __future__ import annotations

import re
from dataclasses import dataclass

from correction import Method, UsageError, find_method
from correction.methods import DEFAULT_METHOD
from correction.schedulers import SAMPLERS

ORACLE = "oracle"  # the method that is fitted on the evaluation noise itself
_ORACLE_METHOD = "affine/free"


@dataclass(frozen=True)
class Sampling:
    """A sampler of correction.schedulers.SAMPLERS and its number of steps, 1 to 4096. Raises UsageError for others."""

    sampler: str
    steps: int

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(f"unknown sampler {self.sampler!r}; there are {', '.join(SAMPLERS)}")
        if not 1 <= self.steps <= 4096:
            raise UsageError(f"steps must be 1 to 4096, got {self.steps}")

    @property
    def name(self) -> str:
        return f"{self.sampler}:{self.steps}"

    @classmethod
    def parse(cls, text: str) -> Sampling:
        """ "ddim:50" -> DDIM in 50 steps. Raises UsageError for anything else."""
        match = re.fullmatch(r"([\w-]+):(\d{1,9})", text)
        if match is None:
            raise UsageError(f"a sampler is given with its steps, as in ddim:50, got {text!r}")
        return cls(match[1], int(match[2]))


@dataclass(frozen=True)
class StudySettings:
    """What is compared.

    methods: as `find_method` takes them, or "oracle": four numbers a step and channel by least squares, fitted on the
    evaluation noise itself, to show what is left; "none" is always there. count: evaluation seeds, 2 to 65536.
    calibration_samples: trajectories each correction is solved on, 4 to 4096. seed: of all noise; calibration and
    evaluation draw from streams that cannot overlap. Raises UsageError for values out of range.
    """

    samplings: tuple[Sampling, ...] = (Sampling("ddim", 50),)
    methods: tuple[str, ...] = (DEFAULT_METHOD,)
    count: int = 64
    calibration_samples: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.methods:
            method_of(name)
        if not self.samplings:
            raise UsageError("a study needs a sampler, as in ddim:50")
        for name, low, high in (("count", 2, 65536), ("calibration_samples", 4, 4096)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name.replace('_', ' ')} must be {low} to {high}, got {value}")
        rest = tuple(dict.fromkeys(name for name in self.methods if name != "none"))
        object.__setattr__(self, "methods", ("none", *rest))

    @property
    def usual(self) -> str:
        """The default of an export where it is compared, else the first correction that is, else "none"."""
        return DEFAULT_METHOD if DEFAULT_METHOD in self.methods else [*self.methods, "none"][1]


def method_of(name: str) -> Method:
    """The method of that name; the oracle's is affine at both ends, not gated."""
    return find_method(_ORACLE_METHOD if name == ORACLE else name)
