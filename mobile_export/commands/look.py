"""The verbs that look: verify, inspect, report, models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mobile_export.commands.app import BundlePath, Json, Targets, app, require_folder, show, show_bundle
from mobile_export.terminal import TerminalProgress, table_of


@app.command()
def verify(bundle: BundlePath, target: Targets = None, as_json: Json = False) -> None:
    """Check every digest and binding of a bundle, and replay its golden records on its artifacts."""
    from mobile_export.bundle import Bundle
    from mobile_export.inspection import placement
    from mobile_export.verify import verify_bundle

    opened = Bundle.open(bundle)
    parts = {
        name: {
            "correction bound to artifact": result.artifact_sha256,
            "golden outputs equal to the bit": result.outputs_equal,
            "lowest PSNR of an output (dB)": round(min(result.output_psnr_db), 1),
            "golden sample equal to the bit": result.sample_error == 0,
            **placement(result.delegates, result.undelegated),
            **({} if result.native_error is None else {"relative difference from Core ML itself": result.native_error}),
            "conversion parity, at export": {
                c: opened.component(name, c)["conversion_parity"] for c in opened.components(name)
            },
        }
        for name, result in verify_bundle(opened, tuple(target or ())).items()
    }
    figures = {"files, sizes and sha256 right": len(opened.manifest["files"])}
    show_bundle(as_json, f"{opened.name}: verified", figures, parts)


@app.command()
def inspect(
    path: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE-or-FILE", help="A bundle, a .pte, an .mlpackage or a correction file."),
    ],
    as_json: Json = False,
) -> None:
    """Tell what a bundle, an artifact or a correction file holds."""
    from mobile_export.inspection import inspect_path

    title, figures = inspect_path(path)
    show(as_json, title, figures)


@app.command()
def report(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="One or more bundles of one model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML page to write.")] = Path("report.html"),
    count: Annotated[int, typer.Option("-n", help="Held-out seeds to evaluate on.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the evaluation noise.")] = 0,
    model: Annotated[str | None, typer.Option(help="The reference; default: where the bundle came from.")] = None,
    target: Targets = None,
    no_benchmark: Annotated[bool, typer.Option("--no-benchmark", help="Skip the time per step.")] = False,
    as_json: Json = False,
) -> None:
    """Evaluate bundles against the reference on held-out noise, and write one HTML page."""
    from mobile_export.bundle import Bundle
    from mobile_export.evaluate.bundle_evaluation import evaluate_all, figures_of
    from mobile_export.models.diffusion_model import load_model
    from mobile_export.report.page import write_report

    require_folder(output)
    opened = [Bundle.open(bundle) for bundle in bundles]
    with TerminalProgress() as progress:
        reference = load_model(model) if model else None
        targets = tuple(target or ())
        evaluations = evaluate_all(opened, count, seed, targets, reference, not no_benchmark, progress)
        progress.stage("write the page")
        write_report(output, evaluations)
    if as_json:
        figures: dict[str, Any] = {"report": str(output)}
        for found in evaluations:
            figures.setdefault(found.name, {})[found.target] = figures_of(found)
        print(json.dumps(figures, indent=1, sort_keys=True))
    else:
        for found in evaluations:
            Console(highlight=False).print(table_of(f"{found.name}, {found.target}", figures_of(found)))
        Console(highlight=False, soft_wrap=True).print(f"report: {output.resolve()}")


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that come with the package."""
    from mobile_export.models.diffusion_model import load_model
    from mobile_export.models.zoo import zoo_names

    found: dict[str, dict[str, Any]] = {}
    for name in zoo_names():
        model = load_model(name)
        found[name] = {
            "kind": model.kind,
            "parameters": model.component("unet").parameters,
            "sample": list(model.sample_shape),
            "classes": list(model.classes),
        }
    if as_json:
        print(json.dumps(found, indent=1, sort_keys=True))
        return
    table = Table("model", "kind", "parameters", "sample", "classes")
    for name, entry in found.items():
        shape = "x".join(map(str, entry["sample"]))
        table.add_row(name, entry["kind"], f"{entry['parameters']:,}", shape, ", ".join(entry["classes"]))
    Console(highlight=False).print(table)
