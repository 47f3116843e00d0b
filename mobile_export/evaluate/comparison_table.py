"""Comparison tables: a study's rows as Markdown, and their place in a document."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from filelock import FileLock

from correction import UsageError
from mobile_export.evaluate.comparison import Comparison
from mobile_export.evaluate.outcome import OutcomeKey
from mobile_export.evaluate.study_settings import ORACLE
from mobile_export.metrics import Interval

_COLUMNS = (
    "correction", "image PSNR (dB)", "gain (dB)", "default ahead by (dB)", "SSIM", "Fréchet to real",
    "over the reference", "default nearer by", "Fréchet to reference", "output SNR (dB)", "sample SNR (dB)",
    "mean drift", "std ratio", "steps", "bytes",
)  # fmt: skip


def comparison_tables(
    rows: Mapping[OutcomeKey, Comparison],
    default: str,
    references: Mapping[str, Interval],
    baseline: str | None = None,
) -> str:
    """A table for each network and sampling; the oracle's row is marked, and so are rows the default does not beat.

    references: Fréchet distance to real pictures of the reference itself, by sampling; baseline: name of the network
    whose row opens every table of the others.
    """
    parts = []
    for network, sampling in dict.fromkeys((key.network, key.sampling) for key in rows if key.network != baseline):
        names = (baseline, network)
        shown = [row for key, row in rows.items() if key.sampling == sampling and key.network in names]
        title = f"**{network}, {sampling.replace(':', ', ')} steps**"
        if sampling in references:
            title += f" (the reference's own Fréchet distance to real pictures: {_interval(references[sampling], 3)})"
        lines = [title, "", line(_COLUMNS), line("---" for _ in _COLUMNS)]
        lines += [line(_cells(row, default, baseline)) for row in shown]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def require_place(path: Path, name: str) -> tuple[str, re.Pattern[str]]:
    """The document's text, and the pattern of what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises UsageError when the document cannot be read or does not have the two, once and in this order.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from error
    pattern = re.compile(f"({re.escape(begin)}).*?({re.escape(end)})", re.DOTALL)
    if (content.count(begin), content.count(end), len(pattern.findall(content))) != (1, 1, 1):
        raise UsageError(f"{path} must have one line {begin!r} and, after it, one line {end!r}")
    return content, pattern


def write_into(path: Path, name: str, text: str) -> None:
    """Put the text into its place in a document, of which other processes may be writing other places; see
    `require_place`."""
    lock = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]
    with FileLock(Path(tempfile.gettempdir()) / f"mobile-export-{lock}.lock"):
        content, pattern = require_place(path, name)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(pattern.sub(lambda m: f"{m[1]}\n{text.strip()}\n{m[2]}", content), encoding="utf-8")
        os.replace(partial, path)


def _cells(row: Comparison, default: str, baseline: str | None) -> list[str]:
    method = row.key.method
    name = {ORACLE: "oracle (fitted on these very seeds)", default: f"**{method}** (default)"}.get(method, method)
    if row.key.network == baseline:
        name = f"*{baseline}, none*"
    return [
        name,
        _interval(row.psnr, 2),
        _gain(row, baseline),
        "" if row.ahead is None else ahead(row.ahead, 2),
        "" if row.ssim is None else f"{row.ssim:.3f}",
        "" if row.to_real is None else _interval(row.to_real, 3) + _closed(row, baseline),
        "" if row.excess is None else over_reference(row.excess),
        "" if row.nearer is None else ahead(row.nearer, 3),
        "" if row.to_reference is None else _interval(row.to_reference, 4),
        f"{row.output_snr:.1f}",
        f"{row.sample_snr:.1f}",
        f"{row.mean_drift:.4f}",
        f"{row.std_ratio:.3f}",
        str(row.kept),
        f"{row.correction_bytes:,}",
    ]


def over_reference(excess: Interval) -> str:
    """A Fréchet distance above the reference's own, with the unit."""
    return f"{excess.mean:+.1f} % ({excess.low:+.1f} to {excess.high:+.1f})"


def ahead(value: Interval, digits: int) -> str:
    """Marked where the default is not ahead: ≈ where the interval holds 0, "no" where the other is better."""
    mark = "" if value.low > 0 else " ≈" if value.high >= 0 else " no"
    return _interval(value, digits, signed=True) + mark


def _gain(row: Comparison, baseline: str | None) -> str:
    """Over the same network without correction, and over the baseline where there is one."""
    over = "" if row.over_baseline is None else f"{_interval(row.over_baseline, 2, signed=True)} over the baseline"
    if row.key.method != "none":
        return _interval(row.gain, 2, signed=True) + (over and f"; {over}")
    return "" if row.key.network == baseline else over


def _closed(row: Comparison, baseline: str | None) -> str:
    """Nothing for the row that the gap is measured from."""
    itself = row.key.network == baseline if baseline else row.key.method == "none"
    return "" if row.closed is None or itself else f", {100 * row.closed:.0f} % closed"


def _interval(value: Interval, digits: int, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (f"{number:{sign}.{digits}f}" for number in (value.mean, value.low, value.high))
    return f"{mean} ({low} to {high})"


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
