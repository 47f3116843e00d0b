"""The sentences of the page say what the numbers say: gain, loss, neither, and what forbids shipping."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import make_evaluation

from mobile_export.evaluation import Evaluation
from mobile_export.report import render_report, wording
from mobile_export.report import verdict as verdicts


def text_of(evaluation: Evaluation) -> str:
    """The page without tags, white space made single."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", render_report([evaluation]))))


def verdict_of(evaluation: Evaluation) -> tuple[verdicts.Verdict, str]:
    verdict = verdicts.judge(evaluation, evaluation.precision)
    return verdict, verdicts.headline([verdict])


def test_verdict_of_a_gain() -> None:
    verdict, headline = verdict_of(make_evaluation(gain=2.4))
    assert verdict.correction == verdicts.GAIN and verdict.sound
    assert headline == (
        "The correction brings the pictures of w4a8 closer to the reference; "
        "the artifact computes what its quantized model computes."
    )
    assert "lifts the image PSNR" in verdict.sentence and "better on 92" in verdict.sentence


def test_verdict_of_a_loss() -> None:
    verdict, headline = verdict_of(make_evaluation(gain=-1.3))
    assert verdict.correction == verdicts.LOSS
    assert "makes the pictures of w4a8 worse and should be left out" in headline and "closer" not in headline
    assert "costs image quality" in verdict.sentence and "lifts" not in verdict.sentence
    assert headline in text_of(make_evaluation(gain=-1.3))


def test_an_interval_that_holds_zero_is_no_gain() -> None:
    verdict, headline = verdict_of(make_evaluation(gain=0.2))
    assert verdict.correction == verdicts.UNCLEAR
    assert "no clear difference to w4a8" in headline and "cannot be told from zero" in verdict.sentence


def test_a_correction_that_was_dropped_everywhere_is_not_praised() -> None:
    evaluation = make_evaluation()
    verdict, headline = verdict_of(replace(evaluation, kept_steps=np.zeros(24, bool)))
    assert verdict.correction == verdicts.UNUSED and "switched off for w4a8" in headline


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight_codes_equal": False}, "weight codes differ"),
        ({"worst_code_step": 2}, "2 steps off"),
        ({"flip_rate": 0.02}, "of the activation codes differ"),
        ({"flip_rate": float("nan")}, "of the activation codes differ"),
        ({"lockstep_output_error": 0.01}, "lock-step output error is"),
        ({"lockstep_output_error": float("nan")}, "lock-step output error is NaN"),
        ({"lockstep_output_error": None}, "was not measured"),
    ],
)
def test_failed_parity_forbids_shipping(change: dict[str, Any], reason: str) -> None:
    evaluation = make_evaluation()
    broken = replace(evaluation, conversion_parity={**evaluation.conversion_parity, **change})
    verdict, headline = verdict_of(broken)
    assert headline.startswith("Do not ship w4a8") and "computes what" not in headline
    assert reason in verdict.warning
    assert reason in text_of(broken)


def test_failed_sampler_parity_forbids_shipping() -> None:
    for difference in (1e-3, float("nan")):
        verdict, headline = verdict_of(replace(make_evaluation(), sampler_parity=difference))
        assert headline.startswith("Do not ship w4a8") and "Sampler parity fails" in verdict.warning


def test_limits_are_the_exporters_own() -> None:
    backend = pytest.importorskip("mobile_export.backends.executorch.backend")
    assert verdicts.MAX_CODE_STEP == backend.MAX_CODE_STEP
    assert verdicts.MAX_FLIP_RATE == backend.MAX_FLIP_RATE
    assert verdicts.MAX_LOCKSTEP_ERROR == backend.MAX_OUTPUT_ERROR


def test_float_activations_have_no_codes_to_compare() -> None:
    evaluation = make_evaluation("w4a16")
    parity = {"activation_codes_compared": 0, "flip_rate": None, "worst_code_step": None}
    evaluation = replace(evaluation, conversion_parity={**evaluation.conversion_parity, **parity})
    text = text_of(evaluation)
    assert "No activation codes to compare." in text and "None" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.size(999), "999 B"),
        (wording.size(2344), "2.34 kB"),
        (wording.size(999_600), "1000 kB"),
        (wording.size(31e6), "31.0 MB"),
        (wording.size(160e3), "160 kB"),
        (wording.decibel(-0.04), "0.0 dB"),
        (wording.decibel(-1.25, signed=True), "−1.2 dB"),
        (wording.decibel(None), "not measured"),
        (wording.percent(0.00012, 3), "0.012 %"),
        (wording.percent(1e-7, 3), "1.0 × 10⁻⁵ %"),
        (wording.percent(0.0, 3), "0.000 %"),
        (wording.scientific(4.2e-7), "4.2 × 10⁻⁷"),
        (wording.scientific(0.0), "0"),
        (wording.number(float("inf")), "∞"),
        (wording.listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_wording(text: str, expected: str) -> None:
    assert text.replace("\N{NO-BREAK SPACE}", " ") == expected
