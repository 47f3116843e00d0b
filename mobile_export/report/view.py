"""View: what the template shows of one evaluation, already drawn and worded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from mobile_export.evaluate.evaluation import Evaluation
from mobile_export.report.check import IDENTITY, ReportError, check
from mobile_export.report.heatmaps import heat_map
from mobile_export.report.pictures import Column, Row, columns, seed_rows, strip_rows
from mobile_export.report.plots import channel_plot, snr_plot
from mobile_export.report.verdict import Verdict, judge

ROWS_SHOWN, ROWS_MOST = 8, 64
TABLE_NAMES = {
    "output_gain": "Output gain K",
    "output_bias": "Output bias b",
    "input_gain": "Input gain G",
    "input_bias": "Input bias B",
}


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption; `svg` is None where there is nothing to draw and the caption says why."""

    caption: str
    svg: Markup | None


@dataclass(frozen=True)
class Bar:
    """A named size beside others: `share` in [0, 1] of the longest bar or of the whole."""

    name: str
    bytes: float
    share: float
    accent: bool = False


@dataclass(frozen=True)
class PartView:
    """One part of a bundle on the page; `key` is safe inside an id, everything else is escaped by the template."""

    key: str
    title: str
    evaluation: Evaluation
    verdict: Verdict
    curves: tuple[Drawing, ...]
    tables: tuple[Drawing, ...]
    dropped_steps: int
    size_bars: tuple[Bar, ...]
    part_bars: tuple[Bar, ...]
    delegates: tuple[str, ...]
    undelegated: tuple[tuple[str, Any], ...]
    operations: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class PictureView:
    """The pictures of parts that were drawn from the same noise: those of one bundle, beside one reference.

    first_rows: the seeds that are shown at once, in one or two blocks that stand side by side.
    """

    title: str
    columns: tuple[Column, ...]
    strip_steps: tuple[int, ...]
    first_rows: tuple[tuple[Row, ...], ...]
    more_rows: tuple[Row, ...]
    rows_left_out: int
    strips: tuple[Row, ...]


def part_views(evaluations: Sequence[Evaluation]) -> tuple[PartView, ...]:
    """Check every evaluation and prepare it for the template.

    Raises:
        ReportError: there is none, two have the same name and target, or one is inconsistent.
    """
    if not evaluations:
        raise ReportError("A report needs at least one evaluation, got none.")
    twice = [pair for pair, count in Counter((each.name, each.target) for each in evaluations).items() if count > 1]
    if twice:
        pairs = ", ".join(f"{name} ({target})" for name, target in twice)
        raise ReportError(f"Evaluations in one report need different names or targets, got twice: {pairs}.")
    for evaluation in evaluations:
        check(evaluation)
    names = _bundle_titles(evaluations)
    return tuple(
        _view(evaluation, f"{names[evaluation.name]} · {evaluation.target_title}", f"part{index}")
        for index, evaluation in enumerate(evaluations, start=1)
    )


def picture_views(parts: Sequence[PartView]) -> tuple[PictureView, ...]:
    """The pictures of checked evaluations, parts of one bundle that share their reference in one view."""
    groups: list[list[PartView]] = []
    for part in parts:
        group = next((group for group in groups if _same_noise(group[0].evaluation, part.evaluation)), None)
        if group is None:
            groups.append([part])
        else:
            group.append(part)
    names = _bundle_titles([part.evaluation for part in parts])
    # A single bundle has the room of two side by side, and where one has two targets they stand one below the other.
    blocks = 2 if len(groups) == 1 or max(map(len, groups)) > 1 else 1
    return tuple(
        _pictures(
            [part.evaluation for part in group],
            group[0].title if len(group) == 1 else names[group[0].evaluation.name],
            blocks,
        )
        for group in groups
    )


def _bundle_titles(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """Name of each bundle -> its precision where no other bundle has it, else its name."""
    precisions = {evaluation.name: evaluation.precision for evaluation in evaluations}
    often = Counter(precisions.values())
    return {name: precision if precision and often[precision] == 1 else name for name, precision in precisions.items()}


def _same_noise(one: Evaluation, other: Evaluation) -> bool:
    """Parts of one bundle on the same seeds: their references are the same pictures."""
    same = one.name == other.name and one.labels == other.labels and one.strip_steps == other.strip_steps
    return same and np.array_equal(one.images["reference"], other.images["reference"])


def _pictures(parts: Sequence[Evaluation], title: str, blocks: int) -> PictureView:
    count = len(parts[0].labels)
    shown = min(ROWS_SHOWN, count)
    block = -(-shown // blocks)
    return PictureView(
        title=title,
        columns=columns(parts),
        strip_steps=parts[0].strip_steps,
        first_rows=tuple(seed_rows(parts, first, min(first + block, shown)) for first in range(0, shown, block)),
        more_rows=seed_rows(parts, ROWS_SHOWN, ROWS_MOST),
        rows_left_out=max(0, count - ROWS_MOST),
        strips=strip_rows(parts),
    )


def shared_provenance(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """The lines that are the same for every part, in the order of the first; empty with a single part."""
    if len(evaluations) == 1:
        return {}
    first, *others = (evaluation.provenance for evaluation in evaluations)
    return {key: text for key, text in first.items() if all(other.get(key) == text for other in others)}


def _view(evaluation: Evaluation, title: str, key: str) -> PartView:
    artifact = evaluation.artifact
    return PartView(
        key=key,
        title=title,
        evaluation=evaluation,
        verdict=judge(evaluation, title),
        curves=_curves(evaluation, title, key),
        tables=_tables(evaluation, title, key),
        dropped_steps=int(np.sum(~np.asarray(evaluation.kept_steps, dtype=bool))),
        size_bars=_size_bars(artifact),
        part_bars=_part_bars(artifact["size_parts"]),
        delegates=_delegates(artifact["delegates"]),
        undelegated=_most_first(artifact["undelegated"]),
        operations=_most_first(artifact["operations"]),
    )


def _curves(evaluation: Evaluation, title: str, key: str) -> tuple[Drawing, ...]:
    snr = evaluation.snr_db
    last = ", ".join(f"{snr[name][-1]:.1f} dB {name}" for name in ("quantized", "corrected"))
    return (
        Drawing(
            "Signal-to-noise ratio of the sample after each step, against the reference. Higher is better.",
            snr_plot(snr, f"{key}-snr", f"{title}: signal-to-noise ratio per step; after the last step {last}"),
        ),
        Drawing(
            "Mean drift: how far the mean of the sample is from the reference's. Ideal is 0.",
            channel_plot(
                evaluation.mean_drift, 0.0, "mean drift (sample units)", f"{key}-mean", f"{title}: mean drift per step"
            ),
        ),
        Drawing(
            "Spread: standard deviation of the sample over the reference's. Ideal is 1.",
            channel_plot(
                evaluation.std_ratio,
                1.0,
                "std ratio (1 = reference)",
                f"{key}-std",
                f"{title}: standard deviation ratio per step",
            ),
        ),
    )


def _tables(evaluation: Evaluation, title: str, key: str) -> tuple[Drawing, ...]:
    drawings = []
    for name, identity in IDENTITY.items():
        table = evaluation.tables[name]
        low, high = float(np.min(table)), float(np.max(table))
        label = f"{title}: {name} per channel and step, {low:.4g} to {high:.4g}"
        drawing = heat_map(table, identity, evaluation.kept_steps, f"{key}-{name}", label)
        drawings.append(Drawing(TABLE_NAMES[name], drawing))
    return tuple(drawings)


def _size_bars(artifact: Mapping[str, Any]) -> tuple[Bar, ...]:
    sizes = {
        "float32 artifact": artifact["fp32_bytes"],
        "this artifact": artifact["bytes"],
        "ideal (codes only)": artifact["ideal_bytes"],
        "correction file": artifact["correction_bytes"],
    }
    longest = max([value for value in sizes.values() if value] or [1])
    return tuple(
        Bar(name, value, value / longest, name == "this artifact") for name, value in sizes.items() if value is not None
    )


def _part_bars(parts: Mapping[str, int]) -> tuple[Bar, ...]:
    total = sum(parts.values()) or 1
    return tuple(Bar(name, value, value / total) for name, value in _most_first(parts))


def _most_first(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _delegates(delegates: Any) -> tuple[str, ...]:
    """A count, a list of names, or name -> count, as short texts."""
    if delegates is None:
        return ()
    if isinstance(delegates, Mapping):
        return tuple(f"{name} × {count}" for name, count in delegates.items())
    if isinstance(delegates, str | int):
        return (str(delegates),)
    return tuple(f"{name} × {count}" if count > 1 else str(name) for name, count in Counter(delegates).items())
