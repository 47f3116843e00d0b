"""evaluate: corrections side by side, on noise that none of them was solved on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from correction import UsageError
from correction.methods import DEFAULT_METHOD
from mobile_export.commands.app import Json, Targets, app
from mobile_export.terminal import TerminalProgress

if TYPE_CHECKING:
    from mobile_export.evaluate.comparison import Comparison

DEFAULT_METHODS = (DEFAULT_METHOD, "tac", "ptqd", "d2-dpm")


@app.command()
def evaluate(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="One or more bundles of one model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of tables, pictures and what was measured.")],
    sampler: Annotated[
        list[str] | None, typer.Option(help="Sampler and steps, as ddim:50; may be repeated. Default: ddim:50.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Correction, as tac, d2-dpm/gated or oracle; may be repeated. Default: {', '.join(DEFAULT_METHODS)}."
        ),
    ] = None,
    default: Annotated[
        str | None,
        typer.Option(
            help=f"The correction that the others are compared with. Default: {DEFAULT_METHOD}, else the first."
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", help="Held-out seeds; Fréchet distances need 128.")] = 64,
    calibration_samples: Annotated[int, typer.Option(help="Trajectories each correction is solved on.")] = 48,
    seed: Annotated[int, typer.Option(help="Of all noise.")] = 0,
    model: Annotated[str | None, typer.Option(help="The reference; default: where the bundles came from.")] = None,
    target: Targets = None,
    real: Annotated[
        Path | None,
        typer.Option(
            help="A folder of real pictures, or a file of their feature statistics; default: the model's own."
        ),
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(
            help="Weights of torch-fidelity's Inception-v3: Fréchet distances are then the FID. It needs 4096 seeds.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Another bundle of the model; its first part, uncorrected, is what all are measured against."
        ),
    ] = None,
    into: Annotated[Path | None, typer.Option(help="A document to write the tables into, too.")] = None,
    name: Annotated[str, typer.Option(help="The place there, between <!-- begin NAME --> and <!-- end NAME -->.")] = "",
    as_json: Json = False,
) -> None:
    """Compare corrections on the same artifacts and the same held-out noise."""
    from mobile_export.bundle import Bundle
    from mobile_export.evaluate.bundle_study import bundle_study
    from mobile_export.evaluate.comparison_table import require_place, write_into
    from mobile_export.evaluate.inception import inception as load_inception
    from mobile_export.evaluate.study_settings import Sampling, StudySettings

    if (into is None) != (not name):
        raise UsageError("--into and --name go together")
    if into is not None:
        require_place(into, name)  # before the work
    chosen = tuple(method or DEFAULT_METHODS)
    samplings = tuple(Sampling.parse(text) for text in sampler or ["ddim:50"])
    settings = StudySettings(samplings, chosen, count, calibration_samples, seed)
    opened = [Bundle.open(bundle) for bundle in bundles]
    features = None if inception is None else load_inception(inception)
    with TerminalProgress() as progress:
        beside = None if baseline is None else Bundle.open(baseline)
        found = bundle_study(
            opened, tuple(target or ()), settings, output, default, model, real, beside, progress, features
        )
    text = found.text
    if into is not None:
        write_into(into, name, text)
    if as_json:
        rows = [asdict(row) for row in found.rows.values()]
        print(json.dumps({"tables": str(found.table), "rows": rows}, indent=1, sort_keys=True))
    else:
        for table in _tables(found.rows.values()):
            Console(highlight=False).print(table)
        Console(highlight=False, soft_wrap=True).print(f"tables: {found.table.resolve()}")


def _tables(rows: Iterable[Comparison]) -> Iterator[Table]:
    """What fits a terminal of 80 columns, for each network and sampling; the file has the rest, and all intervals."""
    tables: dict[tuple[str, str], Table] = {}
    for row in rows:
        place = (row.key.network, row.key.sampling)
        if place not in tables:
            columns = ("correction", "PSNR (dB)", "gain (dB), 95 %", "SSIM", "Fréchet to real")
            tables[place] = Table(*columns, title=", ".join(place))
        gain = f"{row.gain.mean:+.2f} ({row.gain.low:+.2f} to {row.gain.high:+.2f})"
        tables[place].add_row(
            row.key.method,
            f"{row.psnr.mean:.2f}",
            "" if row.key.method == "none" else gain,
            "" if row.ssim is None else f"{row.ssim:.3f}",
            "" if row.to_real is None else f"{row.to_real.mean:.3f}",
        )
    yield from tables.values()
