"""Verdict: the sentences at the top of the page, computed from the numbers and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobile_export.backends.backend import exceeded
from mobile_export.evaluate.evaluation import Evaluation
from mobile_export.metrics import Interval
from mobile_export.report.wording import decibel, interval, listing, percent, scientific, size, times

MAX_SAMPLER_DIFFERENCE = 1e-5
ERRORS = {
    "worst_code_step": "largest code step",
    "flip_rate": "flip rate",
    "lockstep_output_error": "lock-step output error",
    "output_max_abs": "largest difference of an output",
    "declared_error": "output error in the declared arithmetic",
    "declared_flip_rate": "flip rate in the declared arithmetic",
    "free_running_error": "difference of the outputs, each on its own",
}

GAIN, LOSS, UNCLEAR, UNUSED, FEW = "gain", "loss", "unclear", "unused", "few"
FEWEST_SEEDS = 8  # for a gain or a loss: two seeds agree by chance every second time, eight once in 128


@dataclass(frozen=True)
class Verdict:
    """What the numbers of one bundle say.

    correction: "gain" or "loss" where the 95 % interval of the paired difference excludes zero, "unclear" where
        it does not, "unused" where the correction was dropped at every step, "few" below FEWEST_SEEDS seeds.
    parity_failures: why conversion parity fails, empty where it passes.
    sampler_failure: why sampler parity fails, "" where it passes.
    sentence: one line with the numbers.
    """

    title: str
    correction: str
    parity_failures: tuple[str, ...]
    sampler_failure: str
    sentence: str

    @property
    def sound(self) -> bool:
        """Both correctness checks passed, so that the quality numbers mean what they say."""
        return not self.parity_failures and not self.sampler_failure

    @property
    def warning(self) -> str:
        """Everything that forbids shipping, as one sentence; empty where the bundle is sound."""
        parts = []
        if self.parity_failures:
            parts.append(f"Conversion parity fails: {listing(self.parity_failures)}.")
        if self.sampler_failure:
            parts.append(f"Sampler parity fails: {self.sampler_failure}.")
        return " ".join(parts)


def judge(evaluation: Evaluation, title: str) -> Verdict:
    """Judge one checked evaluation; `title` is what the page calls it."""
    gain: Interval = evaluation.correction_gain["image_psnr_gain_db"]
    if not np.any(evaluation.kept_steps):
        kind = UNUSED
    elif _seeds(evaluation) < FEWEST_SEEDS:
        kind = FEW
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
        _sampler_failure(evaluation.sampler_parity),
        _sentence(evaluation, kind),
    )


def parity_failures(parity: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the artifact does not compute what the quantized model computes, by its own limits; empty where it does."""
    failures = [] if parity["weight_codes_equal"] else ["the weight codes differ"]
    failures += [_failure(name, value, limit) for name, (value, limit) in exceeded(parity).items()]
    if not parity["limits"]:
        failures.append("no limits were set")
    return tuple(failures)


def _failure(name: str, value: float | None, limit: float) -> str:
    what = ERRORS.get(name, name)
    if value is None:
        return f"the {what} was not measured"
    if name == "worst_code_step":
        return f"an activation code is {value} steps off ({limit:g} allowed)"
    if name == "flip_rate":
        return f"{percent(value, 1)} of the activation codes differ (at most {percent(limit, 1)} may)"
    if name == "declared_flip_rate":
        return f"{percent(value, 1)} of the codes differ in the declared arithmetic (at most {percent(limit, 1)} may)"
    return f"the {what} is {scientific(value)} (at most {scientific(limit)} allowed)"


def _sampler_failure(difference: float) -> str:
    if difference <= MAX_SAMPLER_DIFFERENCE:
        return ""
    limit = scientific(MAX_SAMPLER_DIFFERENCE)
    return f"the loop differs from the scheduler by {scientific(difference)} (at most {limit} allowed)"


def headline(verdicts: Sequence[Verdict]) -> str:
    """The one sentence for the whole page: first what forbids shipping, then what the correction does."""
    broken = [verdict.title for verdict in verdicts if not verdict.sound]
    parts, effects = [], []
    if broken:
        parts.append(f"do not ship {listing(broken)}: the exporter's own correctness checks fail")
    for kind, text in (
        (GAIN, "brings the pictures of {} closer to the reference"),
        (LOSS, "makes the pictures of {} worse and should be left out"),
        (UNCLEAR, "makes no clear difference to {}"),
        (UNUSED, "is switched off for {} because it helped at no step"),
        (FEW, f"cannot be judged on {{}} from fewer than {FEWEST_SEEDS} seeds"),
    ):
        titles = [verdict.title for verdict in verdicts if verdict.correction == kind]
        if titles:
            effects.append(text.format(listing(titles)))
    parts.append(f"the correction {listing(effects)}")
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
    full = artifact["fp32_bytes"]
    smaller = f", {times(full / artifact['bytes'])} smaller than float32" if full else ""
    start = f"{size(artifact['bytes'])}{smaller}; "
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
    both = f"image PSNR {decibel(before.mean)} without and {decibel(after.mean)} with correction"
    if kind == FEW:
        count = _seeds(evaluation)
        seeds = "1 seed is" if count == 1 else f"{count} seeds are"
        return start + f"{both}; {seeds} too few to say more, {FEWEST_SEEDS} are needed."
    return start + f"{both}: the difference of {decibel(gain.mean, signed=True)} cannot be told from zero ({bounds})."


def _seeds(evaluation: Evaluation) -> int:
    return len(evaluation.images["reference"])
