"""Comparison pictures: the same seeds under every correction, and errors over the timesteps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mobile_export.evaluate.outcome import REFERENCE, Outcome, OutcomeKey
from mobile_export.pictures import to_uint8

_DOTS = 110


def write_pictures(
    folder: Path, outcomes: Mapping[OutcomeKey, Outcome], timesteps: Mapping[str, np.ndarray]
) -> list[Path]:
    """grid-*.png and curves-*.png for each network and sampling; timesteps: (T,) by sampling."""
    written = []
    for network, sampling in dict.fromkeys((k.network, k.sampling) for k in outcomes if k.network != REFERENCE):
        rows = {k.method: v for k, v in outcomes.items() if (k.network, k.sampling) == (network, sampling)}
        exact = outcomes[OutcomeKey(REFERENCE, sampling, "none")]
        name = "".join(c if c.isalnum() else "-" for c in f"{network}-{sampling}").lower()
        for kind, figure in (("grid", _grid(exact, rows)), ("curves", _curves(rows, timesteps[sampling]))):
            path = folder / f"{kind}-{name}.png"
            FigureCanvasAgg(figure)
            figure.savefig(path, dpi=_DOTS, metadata={"Software": None})
            written.append(path)
    return written


def _grid(exact: Outcome, rows: Mapping[str, Outcome]) -> Figure:
    """Seeds in rows, methods in columns, the reference first."""
    columns = {REFERENCE: exact, **rows}
    count = len(exact.images)
    figure = Figure(figsize=(0.9 * len(columns) + 0.4, 0.8 * count + 0.6), layout="constrained")
    for c, (name, outcome) in enumerate(columns.items()):
        for r, image in enumerate(to_uint8(outcome.images).transpose(0, 2, 3, 1)):
            axes = figure.add_subplot(count, len(columns), r * len(columns) + c + 1)
            axes.imshow(np.broadcast_to(image, (*image.shape[:2], 3)), interpolation="nearest")
            axes.set_axis_off()
            if r == 0:
                axes.set_title(name.replace("/", "/\n"), fontsize=7)
    return figure


def _curves(rows: Mapping[str, Outcome], timesteps: np.ndarray) -> Figure:
    """Signal-to-noise ratio of the model output and of the sample, by timestep."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for k, (title, name) in enumerate((("model output", "output_snr"), ("sample after the step", "sample_snr"))):
        axes = figure.add_subplot(1, 2, k + 1)
        for method, outcome in rows.items():
            axes.plot(timesteps, getattr(outcome, name), label=method, linewidth=2.2 if method == "none" else 1.1)
        axes.invert_xaxis()
        axes.set(xlabel="timestep", ylabel="dB against the reference", title=title)
        axes.grid(alpha=0.3)
    axes.legend(fontsize=6, frameon=False)
    return figure
