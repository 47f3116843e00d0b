"""Summary: a study in a row: the default correction beside no correction and beside its rivals."""

from __future__ import annotations

from collections.abc import Sequence

from mobile_export.evaluate.bundle_study import BundleStudy
from mobile_export.evaluate.comparison_table import ahead, line, over_reference
from mobile_export.evaluate.outcome import OutcomeKey
from mobile_export.evaluate.study_settings import Sampling


def summary_head(default: str, rivals: Sequence[str]) -> str:
    """The first two lines of the table that `summary_row` gives rows of."""
    cells = ["network", "sampler, steps", "none (dB)", f"{default} (dB)", "gain (dB)"]
    cells += [f"ahead of {rival} (dB)" for rival in rivals]
    cells += ["Fréchet, reference", "none", default, "over the reference"]
    cells += [f"nearer than {rival}" for rival in ("none", *rivals)]
    return f"{line(cells)}\n{line('---' for _ in cells)}"


def summary_row(study: BundleStudy, network: str, sampling: Sampling, default: str, rivals: Sequence[str]) -> str:
    """One network on one sampler, as a row of Markdown. Differences are paired, and marked as in `comparison_tables`.

    network: as in the study's keys. Fréchet distances are to real pictures, and left out where the study has none.
    Raises KeyError for a rival that was not compared.
    """
    rows = {name: study.rows[OutcomeKey(network, sampling.name, name)] for name in ("none", default, *rivals)}
    plain, ours = rows["none"], rows[default]
    cells = [network, f"{sampling.sampler}, {sampling.steps}", f"{plain.psnr.mean:.1f}", f"{ours.psnr.mean:.1f}"]
    cells += [ahead(ours.gain, 2)] + ["" if (found := rows[each].ahead) is None else ahead(found, 2) for each in rivals]
    exact = study.references.get(sampling.name)
    if exact is None or plain.to_real is None or ours.to_real is None:
        return line([*cells, *[""] * (5 + len(rivals))])
    cells += [f"{value.mean:.3f}" for value in (exact, plain.to_real, ours.to_real)]
    cells.append("" if ours.excess is None else over_reference(ours.excess))
    nearer = [rows[each].nearer for each in ("none", *rivals)]
    return line([*cells, *("" if each is None else ahead(each, 3) for each in nearer)])
