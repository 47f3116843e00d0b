"""Every operation against coremltools' own value inference, or PyTorch where that has none."""

from __future__ import annotations

import constexpr_cases
import elementwise_cases
import numpy as np
import pytest
import shape_cases
import spatial_cases
import torch
from one_op import Case, program, reference, run_inputs

from mobile_export.coreml_simulator.ops import OPS
from mobile_export.coreml_simulator.simulator import Simulator

CASES = elementwise_cases.CASES + shape_cases.CASES + spatial_cases.CASES + constexpr_cases.CASES
STATES = {"read_state", "write_state"}  # coremltools builds these only as a pair; test_simulator.py has them


def test_every_operation_has_a_case() -> None:
    assert {case.op for case in CASES} | STATES == set(OPS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_result_is_the_reference(case: Case) -> None:
    expected = reference(case)
    constant = case.op.startswith("constexpr_")
    simulator = Simulator(program(case, expected.types, constant=constant), mode="float32")
    results = simulator({} if constant else run_inputs(case))

    for i, (type, wanted) in enumerate(zip(expected.types, expected.values, strict=True)):
        assert wanted is not None, "coremltools has no value inference for it: the case needs `want`"
        got = results[f"out_{i}"].numpy()
        assert got.shape == type.shape
        if type.element.is_float:
            np.testing.assert_allclose(got, wanted.astype(np.float64), rtol=2e-6, atol=2e-6)
        else:
            np.testing.assert_array_equal(got.astype(np.int64), wanted.astype(np.int64))


def varied(tensor: torch.Tensor, sample: int) -> torch.Tensor:
    """Another tensor for each sample: floats are scaled, the others (indices, masks) stay."""
    return tensor * (1 - 0.125 * sample) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("case", [c for c in CASES if not c.op.startswith("constexpr_") and run_inputs(c)], ids=str)
@pytest.mark.filterwarnings("error:There is a performance drop")  # PyTorch's word for a hidden loop over the samples
@pytest.mark.parametrize("shared", ["nothing", "all but the first input"])
def test_a_batch_equals_its_samples_one_by_one(case: Case, shared: str) -> None:
    simulator = Simulator(program(case, reference(case).types), mode="float32")
    inputs = run_inputs(case)
    batched = {name for i, name in enumerate(inputs) if i == 0 or shared == "nothing"}
    samples = [{n: varied(t, i) if n in batched else t for n, t in inputs.items()} for i in range(3)]
    many = simulator({n: torch.stack([s[n] for s in samples]) if n in batched else t for n, t in inputs.items()})

    for name, got in many.items():
        one_by_one = torch.stack([simulator(sample)[name] for sample in samples])
        torch.testing.assert_close(got, one_by_one, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("case", [c for c in CASES if "cast" not in c.op and c.opset == 18], ids=str)
def test_float16_results_are_float16_values(case: Case) -> None:
    """Also those of operations that are never rounded since they are exact, which this proves."""
    constant = case.op.startswith("constexpr_")
    half = program(case, reference(case).types, half=True, constant=constant)
    inputs = {} if constant else run_inputs(case)
    rounded, whole = Simulator(half)(inputs), Simulator(half, mode="float32")
    exact = whole({n: t.half().float() if t.is_floating_point() else t for n, t in inputs.items()})

    for name, got in rounded.items():
        if got.is_floating_point():
            torch.testing.assert_close(got, exact[name].half().float(), rtol=0, atol=0, equal_nan=True)
        else:
            assert torch.equal(got, exact[name])
