"""Fixtures of the report's tests."""

from __future__ import annotations

import pytest
from synthetic import make_evaluation

from mobile_export.evaluation import Evaluation


@pytest.fixture(scope="session")
def evaluations() -> tuple[Evaluation, ...]:
    """w8a8, where nothing is left to gain, and w4a8, where the correction helps."""
    return make_evaluation("w8a8", noise=0.02, gain=0.1), make_evaluation("w4a8")
