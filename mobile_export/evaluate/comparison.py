"""Comparison: the figures of one correction beside the same network without any, and beside a rival."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mobile_export.evaluate.feature_network import enough_for
from mobile_export.evaluate.frechet import (
    FeatureStatistics,
    distance_difference,
    distance_interval,
    frechet_distance,
)
from mobile_export.evaluate.outcome import REFERENCE, Outcome, OutcomeKey
from mobile_export.metrics import Interval, bootstrap


@dataclass(frozen=True)
class Comparison:
    """One row of a study. All intervals are 95 % bootstraps over seeds.

    psnr: dB, images against the reference's; gain: paired difference to no correction; ahead: paired difference of the
    default method to this one, above 0 where the default is better, None for the default itself. ssim: mean, None
    for tiny images. to_real, to_reference: Fréchet distances, None with too few seeds, or where no real pictures
    are known; excess: paired, in percent, by how much to_real is above the reference's own; nearer: paired, by how much
    less the default method's distance to real pictures is. closed: share of the gap to real pictures, between the
    baseline and the reference, that is closed; None where there is no gap, or one that chance would make.
    over_baseline: paired difference of psnr to the baseline, None without one; the gap's baseline is then the same
    network without correction. mean_drift, std_ratio: of the sample after the last step, the worst channel's.
    output_snr: dB, median over the steps; sample_snr: dB, after the last step.
    """

    key: OutcomeKey
    psnr: Interval
    gain: Interval
    ahead: Interval | None
    over_baseline: Interval | None
    ssim: float | None
    to_real: Interval | None
    excess: Interval | None
    to_reference: Interval | None
    nearer: Interval | None
    closed: float | None
    output_snr: float
    sample_snr: float
    mean_drift: float
    std_ratio: float
    kept: int
    correction_bytes: int


def compare(
    outcomes: Mapping[OutcomeKey, Outcome], default: str, real: FeatureStatistics | None, baseline: str | None = None
) -> dict[OutcomeKey, Comparison]:
    """A comparison for each outcome but the references'. default: the method that others are compared with;
    baseline: name of the network that all are measured against, None for each network without correction."""
    found = {}
    for key, outcome in outcomes.items():
        if key.network == REFERENCE:
            continue
        exact = outcomes[OutcomeKey(REFERENCE, key.sampling, "none")]
        plain = outcomes[OutcomeKey(key.network, key.sampling, "none")]
        usual = outcomes.get(OutcomeKey(key.network, key.sampling, default)) if key.method != default else None
        base = outcomes[OutcomeKey(baseline or key.network, key.sampling, "none")]
        row = _comparison(key, outcome, exact, plain, usual, base, real)
        found[key] = row if baseline else replace(row, over_baseline=None)
    return found


def reference_distances(
    outcomes: Mapping[OutcomeKey, Outcome], samplings: Sequence[str], real: FeatureStatistics
) -> dict[str, Interval]:
    """Fréchet distance to real pictures of the reference itself, by sampling; empty with too few seeds."""
    found = {}
    for sampling in samplings:
        features = outcomes[OutcomeKey(REFERENCE, sampling, "none")].features
        if len(features) >= enough_for(features.shape[1]):
            found[sampling] = distance_interval(features, real)
    return found


def _comparison(
    key: OutcomeKey,
    outcome: Outcome,
    exact: Outcome,
    plain: Outcome,
    usual: Outcome | None,
    base: Outcome,
    real: FeatureStatistics | None,
) -> Comparison:
    enough = len(outcome.psnr) >= enough_for(outcome.features.shape[1])
    closed = excess = None
    if enough and real is not None:
        ours, ideal, before = (
            frechet_distance(FeatureStatistics.of(each.features), real) for each in (outcome, exact, base)
        )
        gap = distance_difference(base.features, exact.features, real)
        closed = (before - ours) / (before - ideal) if gap.low > 0 else None
        excess = distance_difference(outcome.features, exact.features, real).scaled(100 / ideal)
    last = outcome.std_ratio[-1]
    return Comparison(
        key=key,
        psnr=bootstrap(outcome.psnr),
        gain=bootstrap(outcome.psnr - plain.psnr),
        ahead=None if usual is None else bootstrap(usual.psnr - outcome.psnr),
        over_baseline=bootstrap(outcome.psnr - base.psnr),
        ssim=None if np.isnan(outcome.ssim).any() else float(outcome.ssim.mean()),
        to_real=distance_interval(outcome.features, real) if enough and real is not None else None,
        excess=excess,
        to_reference=distance_interval(outcome.features, exact.features) if enough else None,
        nearer=None if usual is None else _nearer(outcome, usual, real),
        closed=closed,
        output_snr=float(np.median(outcome.output_snr)),
        sample_snr=float(outcome.sample_snr[-1]),
        mean_drift=float(np.abs(outcome.mean_drift[-1]).max()),
        std_ratio=float(last[np.abs(np.log(np.maximum(last, 1e-9))).argmax()]),
        kept=outcome.kept,
        correction_bytes=outcome.correction_bytes,
    )


def _nearer(outcome: Outcome, usual: Outcome, real: FeatureStatistics | None) -> Interval | None:
    enough = len(outcome.psnr) >= enough_for(outcome.features.shape[1])
    return distance_difference(outcome.features, usual.features, real) if enough and real is not None else None
