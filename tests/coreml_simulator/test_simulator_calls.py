"""Calls of the evaluator: batches, watching, replacing, hooks and states."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hand_made import constant, halves, program

from mobile_export.coreml_simulator.errors import ProgramError
from mobile_export.coreml_simulator.simulator import Simulator

# ---- batches ----

NETWORK = program(
    {"x": "float16[1, 3, 4, 4]", "t": "float16[1, 5]"},
    [
        (
            "c: float16[1, 6, 4, 4]",
            "conv",
            {"x": "x", "weight": constant(halves((6, 3, 3, 3)), "float16"), "pad_type": constant("same")},
        ),
        ("e: float16[1, 6]", "linear", {"x": "t", "weight": constant(halves((6, 5), 1), "float16")}),
        ("e4: float16[1, 6, 1, 1]", "expand_dims", {"x": "e", "axes": constant([2, 3])}),
        ("sum: float16[1, 6, 4, 4]", "add", {"x": "c", "y": "e4"}),
        ("tokens: float16[1, 6, 16]", "reshape", {"x": "sum", "shape": constant([1, 6, -1])}),
        (
            "codes: int8[1, 6, 16]",
            "quantize",
            {"input": "tokens", "scale": constant(0.0625, "float16"), "output_dtype": constant("int8")},
        ),
        ("back: float16[1, 6, 16]", "dequantize", {"input": "codes", "scale": constant(0.0625, "float16")}),
        (
            "mean: float16[1, 6, 1]",
            "reduce_mean",
            {"x": "back", "axes": constant([-1]), "keep_dims": constant(True, "bool")},
        ),
        ("y: float16[1, 6, 16]", "sub", {"x": "back", "y": "mean"}),
    ],
    ["y", "e"],
)


@pytest.mark.parametrize("mode", ["declared", "float32"])
@pytest.mark.parametrize("batched", [("x", "t"), ("x",), ("t",)])
def test_a_batch_equals_its_samples(mode: str, batched: tuple[str, ...]) -> None:
    simulator = Simulator(NETWORK, mode=mode)
    shapes = {"x": (1, 3, 4, 4), "t": (1, 5)}
    inputs = {n: halves((7, *s) if n in batched else s, seed=9) for n, s in shapes.items()}
    many = simulator(inputs, watch=["codes", "sum"])
    for i in range(7):
        one = simulator({n: x[i] if n in batched else x for n, x in inputs.items()}, watch=["codes", "sum"])
        assert torch.equal(many["codes"][i], one["codes"])
        for name in ("y", "e", "sum"):
            assert many[name].shape == (7, *one[name].shape)
            torch.testing.assert_close(many[name][i], one[name], rtol=1e-3, atol=1e-5)


def test_a_batch_of_one_has_its_axis_and_lengths_must_agree() -> None:
    x, t = halves((1, 1, 3, 4, 4)), halves((1, 5))
    assert Simulator(NETWORK)({"x": x, "t": t})["e"].shape == (1, 1, 6)
    with pytest.raises(ProgramError, match="input 't' is a batch of 2, others are of 1"):
        Simulator(NETWORK)({"x": x, "t": halves((2, 1, 5))})


# ---- watch, replace, hook ----


def test_watch_returns_inputs_constants_and_inner_values() -> None:
    simulator = Simulator(NETWORK)
    x, t = halves((1, 3, 4, 4)), halves((1, 5))
    got = simulator({"x": x, "t": t}, watch=["x", "codes", "c.weight"])
    assert set(got) == {"y", "e", "x", "codes", "c.weight"}
    np.testing.assert_array_equal(got["x"].numpy(), x.astype(np.float32))
    np.testing.assert_array_equal(got["c.weight"].numpy(), halves((6, 3, 3, 3)).astype(np.float32))
    assert got["codes"].dtype == torch.int8
    with pytest.raises(ProgramError, match="watched value 'nothing' is not in the program"):
        simulator({"x": x, "t": t}, watch=["nothing"])


@pytest.mark.parametrize("lead", [(), (3,)])
def test_replace_goes_on_with_another_value(lead: tuple[int, ...]) -> None:
    simulator = Simulator(NETWORK)
    inputs = {"x": halves((*lead, 1, 3, 4, 4)), "t": halves((1, 5))}
    seen = []

    def other(codes: torch.Tensor) -> torch.Tensor:
        seen.append(codes)
        return torch.full_like(codes, 16)

    got = simulator(inputs, watch=["codes", "back"], replace={"codes": other})
    assert [tuple(codes.shape) for codes in seen] == [(*lead, 1, 6, 16)]
    assert torch.equal(got["codes"], torch.full((*lead, 1, 6, 16), 16, dtype=torch.int8))
    assert torch.equal(got["back"], torch.ones(*lead, 1, 6, 16))
    assert torch.equal(got["y"], torch.zeros(*lead, 1, 6, 16))


def test_a_replacement_may_leave_the_batch_or_join_it() -> None:
    simulator = Simulator(NETWORK)
    x, t = {"shared": halves((1, 3, 4, 4)), "many": halves((3, 1, 3, 4, 4))}, halves((1, 5))
    same = torch.full((1, 6, 16), 16, dtype=torch.int8)
    got = simulator({"x": x["many"], "t": t}, watch=["back"], replace={"codes": lambda codes: same})
    assert torch.equal(got["back"], torch.ones(3, 1, 6, 16))
    inputs = {"x": x["shared"], "t": halves((3, 1, 5))}
    own = torch.arange(3.0).reshape(3, 1, 1, 1, 1).expand(3, 1, 6, 4, 4)
    got = simulator(inputs, watch=["sum"], replace={"c": lambda c: own, "e4": lambda e: torch.zeros(1, 6, 1, 1)})
    assert torch.equal(got["sum"], own)


def test_a_replacement_is_rounded_and_checked() -> None:
    simulator, inputs = Simulator(NETWORK), {"x": halves((1, 3, 4, 4)), "t": halves((1, 5))}
    got = simulator(inputs, watch=["sum"], replace={"sum": lambda s: torch.full_like(s, 0.1)})
    assert got["sum"].unique().tolist() == [float(np.float16(0.1))]
    with pytest.raises(
        ProgramError, match=re.escape("replacement of 'sum' is float32[1], declared is float16[1, 6, 4, 4]")
    ):
        simulator(inputs, replace={"sum": lambda s: torch.zeros(1)})
    with pytest.raises(ProgramError, match=re.escape("replacement of 'codes' is float32[1, 6, 16], declared is int8")):
        simulator(inputs, replace={"codes": lambda s: s.float()})
    with pytest.raises(ProgramError, match="value 'x' cannot be replaced: it is not computed at run time"):
        simulator(inputs, replace={"x": lambda s: s})


def test_the_hook_sees_each_value_once_in_order() -> None:
    seen = []
    inputs = {"x": halves((1, 3, 4, 4)), "t": halves((1, 5))}
    got = Simulator(NETWORK)(
        inputs,
        hook=lambda operation, value, tensor: seen.append((operation.type, value.name, tensor)),
        watch=[value.name for operation in NETWORK.operations for value in operation.outputs],
    )
    assert [name for _, name, _ in seen] == [operation.name for operation in NETWORK.operations]
    assert [type for type, _, _ in seen] == [operation.type for operation in NETWORK.operations]
    assert all(torch.equal(got[name], tensor) for _, name, tensor in seen)


def test_values_are_freed_after_their_last_use() -> None:
    simulator = Simulator(NETWORK)
    last = {step.operation.name: set(step.last) for step in simulator._plan.steps}
    assert last == {
        "c": {"x"}, "e": {"t"}, "e4": set(), "sum": {"c", "e4"}, "tokens": {"sum"}, "codes": {"tokens"},
        "back": {"codes"}, "mean": set(), "y": {"back", "mean"},
    }  # fmt: skip


# ---- states ----

COUNTER = program(
    {"x": "float16[2]"},
    [
        ("before: float16[2]", "read_state", {"input": "total"}),
        ("after: float16[2]", "add", {"x": "before", "y": "x"}),
        ("stored", "write_state", {"input": "total", "data": "after"}),
        ("again: float16[2]", "read_state", {"input": "total"}),
        ("y: float16[2]", "mul", {"x": "again", "y": constant(2.0, "float16")}),
    ],
    ["before", "y"],
    states={"total": "float16[2]"},
)


def test_a_state_is_kept_in_the_callers_mapping_alone() -> None:
    simulator, x = Simulator(COUNTER), {"x": np.array([1.0, 0.1], np.float16)}
    tenth = float(np.float16(0.1))
    state: dict[str, torch.Tensor] = {}
    assert simulator(x, state=state)["before"].tolist() == [0.0, 0.0]
    assert state["total"].tolist() == [1.0, tenth]
    first = simulator(x, state=state)
    assert first["before"].tolist() == [1.0, tenth]
    assert first["y"].tolist() == [4.0, 4 * tenth]
    state["total"].zero_()
    assert simulator(x, state=state)["before"].tolist() == [0.0, 0.0]
    assert simulator(x)["before"].tolist() == simulator(x)["before"].tolist() == [0.0, 0.0]


def test_a_state_in_a_batch() -> None:
    simulator, state = Simulator(COUNTER), {"total": torch.tensor([5.0, 6.0])}
    x = np.array([[1, 2], [3, 4], [5, 6]], np.float16)
    got = simulator({"x": x}, state=state)
    assert got["before"].tolist() == [[5.0, 6.0]] * 3
    assert state["total"].tolist() == [[6, 8], [8, 10], [10, 12]]
    assert simulator({"x": np.zeros(2, np.float16)}, state=state)["y"].tolist() == [[12, 16], [16, 20], [20, 24]]


@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros(2, dtype=torch.int32)])
def test_a_state_that_does_not_fit(value: torch.Tensor) -> None:
    with pytest.raises(ProgramError, match=re.escape("input 'total' is ")):
        Simulator(COUNTER)({"x": np.zeros(2, np.float16)}, state={"total": value})
