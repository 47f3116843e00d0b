"""Fixtures of the report's tests."""

from __future__ import annotations

import pytest
from synthetic import make_evaluation, on_core_ml

from mobile_export.evaluate.evaluation import Evaluation


@pytest.fixture(scope="session")
def evaluations() -> tuple[Evaluation, ...]:
    """w8a8, where nothing is left to gain, and w4a8, where the correction helps."""
    return make_evaluation("w8a8", noise=0.02, gain=0.1), make_evaluation("w4a8")


@pytest.fixture(scope="session")
def side_by_side() -> tuple[Evaluation, ...]:
    """Two bundles, w8a8 with one part and w4a8 with two that were drawn from the same noise."""
    return (
        make_evaluation("w8a8", noise=0.02, gain=0.1),
        make_evaluation("w4a8"),
        on_core_ml(make_evaluation("w4a8", noise=0.1, gain=1.8)),
    )
