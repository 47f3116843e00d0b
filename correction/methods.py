"""Correction methods by name: which closed form solves the input half and which the output half."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from correction import solve
from correction.errors import UsageError
from correction.solve import Solver


@dataclass(frozen=True)
class Method:
    """How a step is fitted.

    Attributes:
        name: as in METHODS, or your own.
        input: solver of input gain and bias from (x, x̂), or None.
        output: solver of output gain and bias from (e, ê), or None.
        paired: False fits the output at the same input, e = reference(x̂ corrected); True at each one's own sample,
            e = reference(x).
        gated: keep a half only where held-out samples come nearer to the reference after the step, and the whole only
            if all samples do at the end; False keeps all of it, as the rivals' papers do.
        less_noise: take the variance of what the output correction leaves from the fresh noise that the sampler adds
            (PTQD's variance schedule calibration); changes nothing where a sampler adds none.
        tuned: search how much of either half to apply, for the last sample (strength.py).
        about: one line for people.

    Raises UsageError for less noise without an output correction, or tuned.
    """

    name: str
    input: Solver | None = None
    output: Solver | None = None
    paired: bool = False
    gated: bool = True
    less_noise: bool = False
    tuned: bool = False
    about: str = ""

    def __post_init__(self) -> None:
        if self.less_noise and self.output is None:
            raise UsageError(f"{self.name}: less_noise is about what an output correction leaves; it has none.")
        if self.less_noise and self.tuned:
            raise UsageError(f"{self.name}: less_noise goes with what was solved, and cannot be tuned.")

    def describe(self) -> str:
        """What distinguishes this method, settings included; equal text means equal results."""
        fitted = f"input={_label(self.input)} output={_label(self.output)} paired={self.paired}"
        gate = "by the end of all" if self.gated else "no"
        return f"{fitted} gated={gate} less_noise={self.less_noise}{' tuned' if self.tuned else ''}"


def _label(solver: Solver | None) -> str:
    return getattr(solver, "__name__", None) or repr(solver)


_ALL = (
    Method("none", about="no correction"),
    Method("ibc", solve.mean_bias, about="TAC's input half: the mean of the sample"),
    Method("tac", solve.mean_bias, solve.NoiseEstimate(), about="IBC and masked NER, fitted at the same input"),
    Method("tac-paired", solve.mean_bias, solve.NoiseEstimate(), True, about="IBC and masked NER, paired trajectories"),
    Method(
        "tac-lsq", solve.mean_bias, solve.least_squares_gain, about="IBC and a least-squares gain, at the same input"
    ),
    Method("tac-std", solve.mean_bias, solve.std_matched_gain, about="IBC and a std-matched gain, at the same input"),
    Method("input-gain", solve.moments_matched, about="mean and standard deviation of the sample"),
    Method("input-affine", solve.affine_least_squares, about="affine least squares on the sample"),
    Method(
        "input-affine-ner",
        solve.affine_least_squares,
        solve.NoiseEstimate(),
        about="affine least squares on the sample, then NER at the same input",
    ),
    Method(
        "affine",
        solve.affine_least_squares,
        solve.affine_least_squares,
        about="affine least squares on the sample, then on the output at the same input",
    ),
    Method(
        "ibc-affine",
        solve.mean_bias,
        solve.affine_least_squares,
        about="IBC, then affine least squares on the output at the same input",
    ),
    Method("ner", output=solve.NoiseEstimate(), about="TAC's output half: a masked gain, at the same input"),
    Method(
        "ptqd",
        output=solve.correlation_removed,
        gated=False,
        less_noise=True,
        about="PTQD: correlated noise and bias removed, the rest taken from the sampler's noise",
    ),
    Method(
        "d2-dpm",
        output=solve.affine_least_squares,
        gated=False,
        less_noise=True,
        about="D2-DPM: the estimate's mean given what was seen, the rest taken from the sampler's noise",
    ),
)
METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ALL})
DEFAULT_METHOD = "affine"


def find_method(name: str) -> Method:
    """The method of that name, with the changes that follow it: "tac", "d2-dpm/gated", "tac/paired/l1=0.8".

    Changes: `gated` and `free`, `paired` and `same` (the same input), `tuned`, `l1=` and `l2=` of NER.

    Raises:
        UsageError: there is none; lists what exists.
    """
    base, *changes = name.split("/")
    if base not in METHODS:
        raise UsageError(f"unknown correction method {base!r}; there are {', '.join(METHODS)}.")
    method = METHODS[base]
    for change in changes:
        method = _changed(method, change)
    return replace(method, name=name)


_CHANGES: Mapping[str, Callable[[Method], Method]] = MappingProxyType(
    {
        "gated": lambda method: replace(method, gated=True),
        "free": lambda method: replace(method, gated=False),
        "paired": lambda method: replace(method, paired=True),
        "same": lambda method: replace(method, paired=False),
        "tuned": lambda method: replace(method, tuned=True),
    }
)


def _changed(method: Method, change: str) -> Method:
    if change in _CHANGES:
        return _CHANGES[change](method)
    name, _, value = change.partition("=")
    if name not in ("l1", "l2") or not isinstance(method.output, solve.NoiseEstimate):
        known = ", ".join((*_CHANGES, "l1=, l2= where NER is part of it"))
        raise UsageError(f"{method.name} cannot be {change!r}; changes are {known}.")
    try:
        return replace(method, output=replace(method.output, **{name: float(value)}))
    except ValueError as error:
        raise UsageError(f"{name} must be a number, got {value!r}.") from error
