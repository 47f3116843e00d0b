"""SVG: a matplotlib figure as inline SVG that follows the page's colours and is the same bytes every time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins that are drawn, then replaced by CSS variables, so that one figure reads in light and in dark.
INK, FAINT, GRID, QUANTIZED, CORRECTED = "#010203", "#010204", "#010205", "#010206", "#010207"
VARIABLES = {
    INK: "var(--text)",
    FAINT: "var(--muted)",
    GRID: "var(--line)",
    QUANTIZED: "var(--quantized)",
    CORRECTED: "var(--corrected)",
}
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "report",
    "svg.fonttype": "none",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "hatch.color": FAINT,
    "hatch.linewidth": 0.7,
}
FONT = re.compile(r"(font: [^;\"']*?[\d.]+px )[^;\"]*")
IDENTIFIER = re.compile(r"(\bid=\"|url\(#|href=\"#)")


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this: matplotlib's own defaults plus the report's, whatever the user's settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def inline(figure: Figure, prefix: str, label: str) -> Markup:
    """Render a figure for use inside an HTML page.

    Call it inside `style()`.

    Args:
        figure: drawn in the stand-in colours of this module.
        prefix: put before every id in the drawing; unique on the page.
        label: what the figure shows, for those who cannot see it.

    Returns:
        an <svg> element without namespace or metadata, colours as CSS variables, text as text.
    """
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # would style the page
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = FONT.sub(r"\1var(--font)", text)
    text = IDENTIFIER.sub(rf"\g<1>{prefix}-", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    head = f'<svg class="plot" role="img" aria-label="{escape(label)}" '
    text = re.sub(r'^<svg width="[^"]*" height="[^"]*" ', lambda _: head, text)
    return Markup(text.strip())  # matplotlib escaped the text, the label is escaped above
