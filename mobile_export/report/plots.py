"""Plots: the curves over the sampling steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mobile_export.metrics import MAX_DB
from mobile_export.report import svg

WIDTH, HEIGHT = 3.6, 2.5  # inches: small, so that the text stays readable at 330 px and fills 500 px well
STYLES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
BELOW = 2.6  # the lower of two lines is wider, so that it shows where they coincide
COLOURS = {"quantized": svg.QUANTIZED, "corrected": svg.CORRECTED}
NAMES = {"quantized": "quantized", "corrected": "quantized + correction"}


def snr_plot(snr_db: Mapping[str, npt.NDArray[np.floating]], prefix: str, label: str) -> Markup:
    """Signal-to-noise ratio against the reference after each step.

    Args:
        snr_db: "quantized" and "corrected" -> (T,) in dB; a gap where it is NaN or at least `MAX_DB` (equal).
        prefix, label: see `svg.inline`.
    """
    with svg.style():
        figure, axes = _panel(len(snr_db["quantized"]), "SNR against reference (dB)")
        for key, colour in COLOURS.items():
            curve = np.asarray(snr_db[key], dtype=np.float64)
            axes.plot(
                _finite(np.where(curve < MAX_DB, curve, np.nan)),
                color=colour,
                linewidth=BELOW if key == "quantized" else 1.4,
                marker=_marker(len(curve)),
                markersize=3.0,
            )
        _legend(figure, 1)
        return svg.inline(figure, prefix, label)


def channel_plot(
    curves: Mapping[str, npt.NDArray[np.floating]], ideal: float, quantity: str, prefix: str, label: str
) -> Markup:
    """One quantity per step and channel, with and without correction, beside its ideal value.

    Args:
        curves: "quantized" and "corrected" -> (T, C).
        ideal: the value without any drift, drawn as a thin line.
        quantity: the label of the vertical axis, with the unit.
        prefix, label: see `svg.inline`.
    """
    with svg.style():
        steps, channels = np.shape(curves["quantized"])
        figure, axes = _panel(steps, quantity)
        axes.axhline(ideal, color=svg.FAINT, linewidth=0.8)
        for key, colour in COLOURS.items():
            for channel in range(channels):
                axes.plot(
                    _finite(curves[key][:, channel]),
                    color=colour,
                    linestyle=STYLES[channel] if channels <= len(STYLES) else "-",
                    linewidth=1.3 if channels <= len(STYLES) else 0.6,
                    marker=_marker(steps),
                    markersize=3.0,
                )
        _legend(figure, channels)
        return svg.inline(figure, prefix, label)


def _panel(steps: int, quantity: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0.155, 0.165, 0.825, 0.65))
    axes.set_xlim(-0.5 if steps == 1 else 0, max(steps - 1, 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"step (0 = noise, {steps - 1} = image)")
    axes.set_ylabel(quantity)
    return figure, axes


def _legend(figure: Figure, channels: int) -> None:
    lines = [Line2D([], [], color=COLOURS[key], linewidth=2.0, label=NAMES[key]) for key in COLOURS]
    figure.legend(
        handles=lines, loc="upper left", bbox_to_anchor=(0.13, 1.01), ncols=2, handlelength=1.4, columnspacing=1.4
    )
    if 1 < channels <= len(STYLES):
        marks = [
            Line2D([], [], color=svg.FAINT, linestyle=STYLES[index], linewidth=1.3, label=f"channel {index}")
            for index in range(channels)
        ]
        figure.legend(
            handles=marks,
            loc="upper left",
            bbox_to_anchor=(0.13, 0.935),
            ncols=channels,
            handlelength=2.0,
            columnspacing=1.2,
        )


def _marker(steps: int) -> str:
    return "o" if steps == 1 else ""  # a line through one point is invisible


def _finite(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)
