"""The page: evaluations to one self-contained HTML file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jinja2

from mobile_export.evaluate.evaluation import Evaluation
from mobile_export.report import wording
from mobile_export.report.verdict import MAX_SAMPLER_DIFFERENCE, headline
from mobile_export.report.view import ROWS_MOST, TABLE_NAMES, part_views, picture_views, shared_provenance

SECTIONS = (
    ("summary", "Summary"),
    ("pictures", "Pictures"),
    ("denoising", "Denoising"),
    ("curves", "Curves"),
    ("correction", "Correction"),
    ("numbers", "Numbers"),
    ("artifact", "Artifact"),
    ("provenance", "Provenance"),
)
FILTERS = (
    wording.decibel,
    wording.interval,
    wording.listing,
    wording.number,
    wording.percent,
    wording.scientific,
    wording.short,
    wording.sentence,
    wording.size,
    wording.times,
    wording.whole,
)


def write_report(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """Write the report, complete or not at all: to a temporary file beside `path`, then renamed.

    Args:
        path: the HTML file; its directory exists. A file that is already there is replaced.
        evaluations: one per part of a bundle, no part twice, in the order of the page.

    Raises:
        ReportError: an evaluation is incomplete or inconsistent; nothing is written.
        PictureError: images hold NaN or infinite values; nothing is written.
        OSError: the directory cannot be written to.
    """
    text = render_report(evaluations)
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes files that only their owner may read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def render_report(evaluations: Sequence[Evaluation]) -> str:
    """The page as text: no request leaves it, and the same evaluations give the same bytes.

    Raises:
        ReportError, PictureError: see `write_report`.
    """
    parts = part_views(evaluations)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mobile_export.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({function.__name__: function for function in FILTERS})
    page = environment.get_template("report.html.j2").render(
        parts=parts,
        pictures=picture_views(parts),
        headline=headline([part.verdict for part in parts]),
        shared=shared_provenance(evaluations),
        sections=SECTIONS,
        table_names=TABLE_NAMES,
        rows_most=ROWS_MOST,
        max_sampler_difference=MAX_SAMPLER_DIFFERENCE,
        model=next((text for each in evaluations for key, text in each.provenance.items() if key == "model"), ""),
    )
    return page.strip() + "\n"
