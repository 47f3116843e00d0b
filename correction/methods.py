"""Correction methods by name: which closed form solves the input half and which the output half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        about: one line for people.
    """

    name: str
    input: Solver | None = None
    output: Solver | None = None
    paired: bool = False
    about: str = ""

    def describe(self) -> str:
        """What distinguishes this method, settings included; equal text means equal results."""
        return f"input={_label(self.input)} output={_label(self.output)} paired={self.paired}"


def _label(solver: Solver | None) -> str:
    return getattr(solver, "__name__", None) or repr(solver)


_ALL = (
    Method("none", about="no correction"),
    Method("ibc", solve.mean_bias, about="TAC's input half: the mean of the sample"),
    Method("tac", solve.mean_bias, solve.NoiseEstimate(), about="IBC and masked NER, fitted at the same input"),
    Method("tac-paired", solve.mean_bias, solve.NoiseEstimate(), True, "IBC and masked NER, on paired trajectories"),
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
)
METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ALL})


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UsageError: there is none; lists what exists.
    """
    if name not in METHODS:
        raise UsageError(f"unknown correction method {name!r}; there are {', '.join(METHODS)}.")
    return METHODS[name]
