"""Ranges: overflow, underflow and small constants, on programs with known ones."""

from __future__ import annotations

import numpy as np
import pytest
from hand_made import constant, program

from mobile_export.coreml_simulator.ranges import RangeRecorder, RangeReport, small_constants
from mobile_export.coreml_simulator.simulator import Simulator

# A norm as converters write it: the square of 300 overflows in float16, the mean of 4 squares of 200 does when summed.
NORM = program(
    {"x": "float16[1, 4]"},
    [
        ("copy: float16[1, 4]", "identity", {"x": "x"}),
        ("square: float16[1, 4]", "square", {"x": "copy"}),
        (
            "mean: float16[1, 1]",
            "reduce_mean",
            {"x": "square", "axes": constant([1]), "keep_dims": constant(True, "bool")},
        ),
        ("safe: float16[1, 1]", "add", {"x": "mean", "y": constant(1e-5, "float16")}),
        ("root: float16[1, 1]", "rsqrt", {"x": "safe", "epsilon": constant(1e-12, "float16")}),
        ("wide: float32[1, 4]", "cast", {"x": "square", "dtype": constant("fp32")}),
        ("y: float16[1, 4]", "mul", {"x": "copy", "y": "root"}),
    ],
    ["y", "wide"],
)


def recorded(*rows: list[float], mode: str = "float32") -> RangeReport:
    recorder = RangeRecorder(NORM)
    simulator = Simulator(NORM, mode=mode)  # type: ignore[arg-type]
    for row in rows:
        simulator({"x": np.array([row], np.float16)}, hook=recorder)
    return recorder.report()


def test_overflow_is_found_where_it_begins_and_in_its_size() -> None:
    values = {v.name: v for v in recorded([300, -300, 1, 2]).values}
    assert values["square"].largest == 90000
    assert values["square"].overflowed == 2
    assert values["wide"].overflowed == 0, "declared float32"
    assert values["mean"].largest == (90000 * 2 + 5) / 4
    assert values["mean"].overflowed == 0
    assert values["mean"].accumulated == 180005
    assert values["mean"].accumulation_overflows
    assert values["square"].accumulated is None
    assert [v.overflowed for v in values.values() if v.name not in ("square",)] == [0] * 6


@pytest.mark.parametrize(("x", "overflows"), [(255.875, 0), (256.0, 1)])
def test_overflow_begins_where_float16_becomes_infinite(x: float, overflows: int) -> None:
    values = {v.name: v for v in recorded([x, 0, 0, 0]).values}
    assert values["square"].overflowed == overflows
    infinite = Simulator(NORM)({"x": np.array([[x, 0, 0, 0]], np.float16)}, watch=["square"])["square"]
    assert int(np.isinf(infinite.numpy()).sum()) == overflows


@pytest.mark.parametrize(("step", "overflows"), [(15.0, 0), (16.0, 1)])
def test_what_rounds_down_to_the_largest_float16_does_not_overflow(step: float, overflows: int) -> None:
    total = program(
        {"x": "float16[1]"}, [("y: float16[1]", "add", {"x": "x", "y": constant([step], "float16")})], ["y"]
    )
    recorder = RangeRecorder(total)
    Simulator(total, mode="float32")({"x": np.array([65504], np.float16)}, hook=recorder)
    assert recorder.report().values[0].overflowed == overflows


def test_sums_are_looked_at_alone() -> None:
    values = {v.name: v for v in recorded([200, 200, 200, 200]).values}
    assert values["square"].overflowed == values["mean"].overflowed == 0
    assert values["mean"].accumulated == 160000
    assert values["mean"].accumulation_overflows


def test_the_share_of_small_values_leaves_zeros_out() -> None:
    values = {v.name: v for v in recorded([0, 0.5, 2**-8, -(2**-10)]).values}
    assert values["square"].subnormal == 2 / 3
    assert values["copy"].subnormal == 0
    assert values["wide"].subnormal == 0


def test_runs_are_put_together() -> None:
    values = {v.name: v for v in recorded([300, 1, 1, 1], [1, 400, 500, 1], [0, 0.5, 2**-8, 1]).values}
    assert values["square"].largest == 250000
    assert values["square"].overflowed == 3
    assert values["square"].subnormal == 1 / 3
    assert values["mean"].accumulated == 160000 + 250000 + 2


def test_the_most_severe_comes_first() -> None:
    assert [v.name for v in recorded([300, 1, 1, 1]).values][:2] == ["square", "mean"]
    declared = recorded([300, 0, 0, 0], mode="declared")
    assert [(v.name, v.undefined, v.overflowed) for v in declared.values if v.overflowed or v.undefined] == [
        ("square", 0, 1),
        ("mean", 0, 1),
        ("safe", 0, 1),
    ]


def test_nan_is_named_before_all_else() -> None:
    report = recorded([np.nan, 300, 1, 1])
    assert report.values[0].undefined
    assert "identity copy: 1 elements are NaN" in report.text()


def test_small_constants_are_those_that_float16_barely_holds() -> None:
    report = recorded([1, 1, 1, 1])
    assert [(c.operation, c.parameter, c.smallest, c.small, c.elements) for c in report.constants] == [
        ("rsqrt", "epsilon", 0.0, 1, 1),
        ("add", "y", float(np.float16(1e-5)), 1, 1),
    ]
    assert str(report.constants[0]) == "constant root.epsilon (epsilon of rsqrt) is zero: 0"
    assert str(report.constants[1]) == "constant safe.y (y of add) is subnormal: 1.001e-05"
    weights = constant(np.array([1.0, 1e-5, 0.0, 2e-6]), "float16")
    small = small_constants(program({"x": "float16[4]"}, [("y: float16[4]", "mul", {"x": "x", "y": weights})], ["y"]))
    assert [str(c) for c in small] == ["constant y.y (y of mul) has 2 subnormal elements of 4: 2.027e-06"]


def test_the_text_lists_the_findings() -> None:
    assert recorded([300, 1, 1, 1]).text(rows=2).splitlines() == [
        "1 of 7 values go beyond float16 (65504)",
        "reduce_mean mean: sums of about 9e+04 inside, too much for sums in float16",
        "constant root.epsilon (epsilon of rsqrt) is zero: 0",
        "constant safe.y (y of add) is subnormal: 1.001e-05",
        "   largest overflowed  subnormal  value",
        "     9e+04          1       0.0%  square square",
        "  2.25e+04          0       0.0%  reduce_mean mean",
        "... and 5 more like these",
    ]
