"""Heat maps: the four tables of a correction, [channels] x [steps], centred at the value that changes nothing."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mobile_export.report import svg
from mobile_export.report.wording import number

WIDTH = 3.6  # inches, as the curves
LEFT, RIGHT, BOTTOM, TOP = 0.45, 0.74, 0.42, 0.12  # inches around the map; the colour bar stands in RIGHT
BELOW, ABOVE = (214, 96, 4), (45, 115, 240)


def heat_map(
    table: npt.NDArray[np.floating], identity: float, kept: npt.NDArray[np.bool_], prefix: str, label: str
) -> Markup | None:
    """Draw one table; the identity is transparent, so that it is the page's own colour in light and dark.

    Args:
        table: (T, C), finite.
        identity: the value that changes nothing: 1 of a gain, 0 of a bias.
        kept: (T,) bool; steps where it is False are hatched.
        prefix, label: see `svg.inline`.

    Returns:
        the drawing, or None where every entry is the identity and there is nothing to draw.
    """
    difference = np.asarray(table, dtype=np.float64).T - identity  # (C, T)
    bound = float(np.abs(difference).max())
    if bound == 0:
        return None
    channels, steps = difference.shape
    inner = min(max(0.26 * channels, 0.8), 2.6)
    height = TOP + inner + BOTTOM
    with svg.style():
        figure = Figure(figsize=(WIDTH, height))
        width = WIDTH - LEFT - RIGHT
        axes = figure.add_axes((LEFT / WIDTH, BOTTOM / height, width / WIDTH, inner / height))
        axes.grid(visible=False)
        axes.imshow(
            difference,
            cmap=_colours(),
            vmin=-bound,
            vmax=bound,
            aspect="auto",
            interpolation="none",
            extent=(-0.5, steps - 0.5, channels - 0.5, -0.5),
        )
        for first, last in _runs(~np.asarray(kept, dtype=bool)):
            axes.axvspan(first - 0.5, last + 0.5, facecolor="none", edgecolor=svg.FAINT, hatch="//////", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(True)
        axes.set_xlabel(f"step (0 = noise, {steps - 1} = image)")
        axes.set_ylabel("channel")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        bar = figure.add_axes(((LEFT + width + 0.1) / WIDTH, BOTTOM / height, 0.1 / WIDTH, inner / height))
        bar.grid(visible=False)
        ramp = np.linspace(bound, -bound, 128)[:, None]
        bar.imshow(
            ramp,
            cmap=_colours(),
            vmin=-bound,
            vmax=bound,
            aspect="auto",
            interpolation="none",
            extent=(0.0, 1.0, -bound, bound),
        )
        bar.spines[["top", "right"]].set_visible(True)
        bar.set_xticks([])
        bar.yaxis.tick_right()
        decimals = max(0, 1 - math.floor(math.log10(bound)))
        bar.set_yticks([-bound, 0.0, bound], [number(identity + value, decimals) for value in (-bound, 0.0, bound)])
        return svg.inline(figure, prefix, label)


def _colours() -> ListedColormap:
    """Orange below, transparent at the identity, blue above; the opacity grows with the distance."""
    position = np.linspace(-1.0, 1.0, 255)
    colours = np.empty((255, 4))
    colours[:, :3] = np.where(position[:, None] < 0, BELOW, ABOVE) / np.float64(255)
    colours[:, 3] = np.abs(position) ** 0.85
    return ListedColormap(colours)


def _runs(marks: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], marks.astype(np.int8), [0]))))
    return [(int(first), int(last) - 1) for first, last in zip(edges[::2], edges[1::2], strict=True)]
