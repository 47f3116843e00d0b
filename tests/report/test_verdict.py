"""The sentences of the page say what the numbers say: gain, loss, neither, and what forbids shipping."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import make_evaluation, on_core_ml

from mobile_export.backends.backend import LIMITED
from mobile_export.evaluate.evaluation import Evaluation
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
    assert headline.replace("w4a8", "w4a8 · ExecuTorch") in text_of(make_evaluation(gain=-1.3))


def test_an_interval_that_holds_zero_is_no_gain() -> None:
    verdict, headline = verdict_of(make_evaluation(gain=0.2))
    assert verdict.correction == verdicts.UNCLEAR
    assert "no clear difference to w4a8" in headline and "cannot be told from zero" in verdict.sentence


@pytest.mark.parametrize(("gain", "seeds"), [(2.4, 2), (-1.3, 7), (2.4, 1)])
def test_few_seeds_are_no_verdict(gain: float, seeds: int) -> None:
    verdict, headline = verdict_of(make_evaluation(gain=gain, seeds=seeds))
    assert verdict.correction == verdicts.FEW
    assert headline.startswith("The correction cannot be judged on w4a8 from fewer than 8 seeds;")
    assert f"{seeds} seed" in verdict.sentence and "too few to say more, 8 are needed" in verdict.sentence
    assert verdict_of(make_evaluation(gain=gain, seeds=8))[0].correction != verdicts.FEW


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
        ({"lockstep_output_error": None}, "lock-step output error was not measured"),
        ({"limits": {}}, "no limits were set"),
        ({"limits": {"speed": 1}}, "the speed was not measured"),
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


FAILURES = {
    "worst_code_step": "an activation code is 3e-05 steps off (2e-05 allowed)",
    "flip_rate": "0.003 % of the activation codes differ (at most 0.002 % may)",
    "lockstep_output_error": "the lock-step output error is 3.0 × 10⁻⁵ (at most 2.0 × 10⁻⁵ allowed)",
    "output_max_abs": "the largest difference of an output is 3.0 × 10⁻⁵ (at most 2.0 × 10⁻⁵ allowed)",
    "declared_error": "the output error in the declared arithmetic is 3.0 × 10⁻⁵ (at most 2.0 × 10⁻⁵ allowed)",
    "declared_flip_rate": "0.003 % of the codes differ in the declared arithmetic (at most 0.002 % may)",
    "free_running_error": "the difference of the outputs, each on its own is 3.0 × 10⁻⁵ (at most 2.0 × 10⁻⁵ allowed)",
}


@pytest.mark.parametrize("name", LIMITED)
def test_limits_are_those_of_the_part(name: str) -> None:
    """The same value passes with one artifact's limit and fails with another's; what has no limit passes."""
    evaluation = make_evaluation()
    parity = {**evaluation.conversion_parity, name: 3e-5}
    assert verdicts.parity_failures({**parity, "limits": {name: 1e-4}}) == ()
    (failure,) = verdicts.parity_failures({**parity, "limits": {name: 2e-5}})
    assert failure.replace("\N{NO-BREAK SPACE}", " ") == FAILURES[name]
    other = "flip_rate" if name != "flip_rate" else "declared_error"
    assert verdicts.parity_failures({**parity, other: 0.0, "limits": {other: 0.0}}) == ()
    assert verdicts.parity_failures({**parity, "limits": {}}) == ("no limits were set",)


def test_an_artifact_in_float16_says_what_that_costs() -> None:
    text = text_of(on_core_ml(make_evaluation()))
    assert "error 1.7 × 10⁻³, at most 4.0 × 10⁻³, 0.900 % of the codes flipped." in text
    assert "no value off by more than 2.1 × 10⁻⁶, at most 3.0 × 10⁻⁵" in text
    assert "In the arithmetic" not in text_of(make_evaluation())


def test_a_large_network_says_at_what_size_it_was_compared() -> None:
    evaluation = make_evaluation()
    limits = {**evaluation.conversion_parity["limits"], "free_running_error": 0.2}
    parity = {**evaluation.conversion_parity, "free_running_error": 0.031, "limits": limits}
    text = text_of(replace(evaluation, conversion_parity=parity))
    assert "compared step by step at a smaller size" in text.lower()
    assert "the outputs differ by 3.1 × 10⁻² (relative L2, at most 2.0 × 10⁻¹)" in text
    assert "at its own size" not in text_of(evaluation)


def test_float_activations_have_no_codes_to_compare() -> None:
    evaluation = make_evaluation("w4a16")
    parity = {"quantizations": 0, "activation_codes_compared": 0, "flip_rate": 0.0, "worst_code_step": 0}
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
