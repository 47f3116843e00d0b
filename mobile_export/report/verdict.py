"""Verdict: the sentences at the top of the page, computed from the numbers and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobile_export.evaluation import Evaluation, Interval
from mobile_export.report.wording import decibel, interval, listing, percent, size, times

MAX_CODE_STEP = 1  # one flipped rounding is float noise; two steps are an export error
MAX_LOCKSTEP_ERROR = 10 ** (-35 / 20)  # relative L2 of the output: 35 dB
MAX_SAMPLER_DIFFERENCE = 1e-5

GAIN, LOSS, UNCLEAR, UNUSED = "gain", "loss", "unclear", "unused"


@dataclass(frozen=True)
class Verdict:
    """What the numbers of one bundle say.

    correction: "gain" or "loss" where the 95 % interval of the paired difference excludes zero, "unclear" where
        it does not, "unused" where the correction was dropped at every step.
    parity_failures, sampler_ok: checks of the export; an empty tuple and True are good.
    sentence: one line with the numbers.
    """

    title: str
    correction: str
    parity_failures: tuple[str, ...]
    sampler_ok: bool
    sentence: str

    @property
    def sound(self) -> bool:
        """Both correctness checks passed, so that the quality numbers mean what they say."""
        return not self.parity_failures and self.sampler_ok


def judge(evaluation: Evaluation, title: str) -> Verdict:
    """Judge one checked evaluation; `title` is what the page calls it."""
    gain: Interval = evaluation.correction_gain["image_psnr_gain_db"]
    if not np.any(evaluation.kept_steps):
        kind = UNUSED
    elif gain.low > 0:
        kind = GAIN
    elif gain.high < 0:
        kind = LOSS
    else:
        kind = UNCLEAR
    return Verdict(
        title,
        kind,
        parity_failures(evaluation.conversion_parity),
        bool(evaluation.sampler_parity <= MAX_SAMPLER_DIFFERENCE),
        _sentence(evaluation, kind),
    )


def parity_failures(parity: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the artifact does not compute what the quantized model computes; empty where it does."""
    failures = []
    if not parity["weight_codes_equal"]:
        failures.append("the weight codes differ")
    step, error = parity["worst_code_step"], parity["lockstep_output_error"]
    if step is not None and step > MAX_CODE_STEP:
        failures.append(f"an activation code is {step} steps off (1 allowed)")
    if error is None or not error <= MAX_LOCKSTEP_ERROR:  # a NaN fails too
        got = "was not measured" if error is None else f"is {percent(error, 1)}"
        failures.append(f"the lock-step output error {got} (at most {percent(MAX_LOCKSTEP_ERROR, 1)} allowed)")
    return tuple(failures)


def headline(verdicts: Sequence[Verdict]) -> str:
    """The one sentence for the whole page: first what forbids shipping, then what the correction does."""
    broken = [verdict.title for verdict in verdicts if not verdict.sound]
    parts = []
    if broken:
        parts.append(f"do not ship {listing(broken)}: the exporter's own correctness checks fail")
    for kind, text in (
        (GAIN, "the correction brings the pictures of {} closer to the reference"),
        (LOSS, "the correction makes the pictures of {} worse, so ship without it"),
        (UNCLEAR, "the correction makes no clear difference to {}"),
        (UNUSED, "the correction is switched off for {}, because it helped at no step"),
    ):
        titles = [verdict.title for verdict in verdicts if verdict.correction == kind]
        if titles:
            parts.append(text.format(listing(titles)))
    if not broken:
        several = len(verdicts) > 1
        parts.append(
            f"{'every artifact computes' if several else 'the artifact computes'} what its quantized model computes"
        )
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _sentence(evaluation: Evaluation, kind: str) -> str:
    artifact, gain = evaluation.artifact, evaluation.correction_gain["image_psnr_gain_db"]
    before: Interval = evaluation.quantization_error["image_psnr_db"]
    after: Interval = evaluation.correction_gain["image_psnr_db"]
    smaller = times(artifact["fp32_bytes"] / artifact["bytes"])
    start = f"{size(artifact['bytes'])}, {smaller} smaller than float32; "
    bounds = f"95 % interval {interval(gain, signed=True)} dB"
    if kind == GAIN:
        improved = percent(evaluation.correction_gain["seeds_improved"])
        return start + (
            f"the {size(artifact['correction_bytes'])} correction lifts the image PSNR from {decibel(before.mean)} to "
            f"{decibel(after.mean)}: {decibel(gain.mean, signed=True)} ({bounds}), better on {improved} of the seeds."
        )
    if kind == LOSS:
        return start + (
            f"the correction costs image quality: PSNR falls from {decibel(before.mean)} to {decibel(after.mean)}, "
            f"{decibel(gain.mean, signed=True)} ({bounds})."
        )
    if kind == UNUSED:
        return start + f"image PSNR {decibel(before.mean)}; no step kept its correction."
    return start + (
        f"image PSNR {decibel(before.mean)} without and {decibel(after.mean)} with correction: the difference of "
        f"{decibel(gain.mean, signed=True)} cannot be told from zero ({bounds})."
    )
