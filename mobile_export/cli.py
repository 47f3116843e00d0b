"""mobile-export: the command line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from correction import CheckFailed, ProjectError, UsageError
from mobile_export.quiet import quiet_third_parties
from mobile_export.terminal import TerminalProgress, error_text, table_of

app = typer.Typer(
    help="Put a low-bit diffusion UNet on a phone, and prove on this machine what the phone will draw.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
Json = Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object on standard output.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder made by export.")]
Targets = Annotated[
    list[str] | None, typer.Option("--target", help="executorch or coreml; may be repeated. Default: all parts.")
]


def main() -> None:
    """Console entry point. Exit codes: 0 ok, 1 a check failed, 2 usage, 130 interrupted (typer's)."""
    quiet_third_parties()
    try:
        app()
    except (ProjectError, OSError) as error:  # OSError: no right to write, no space left
        # One line however long: whoever reads it through a pipe has no 80 columns.
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {error_text(error)}")
        sys.exit(1 if isinstance(error, CheckFailed) else 2)


def _show(as_json: bool, title: str, figures: dict[str, Any]) -> None:
    if as_json:
        print(json.dumps(figures, indent=1, sort_keys=True, default=str))
    else:
        Console(highlight=False).print(table_of(title, figures))


def _show_bundle(as_json: bool, title: str, figures: dict[str, Any], parts: dict[str, dict[str, Any]]) -> None:
    """The figures of a bundle and of its parts by target: a table for each, or one JSON object."""
    if as_json:
        _show(True, title, figures | parts)
        return
    _show(False, title, figures)
    for target, values in parts.items():
        _show(False, f"{title}, {target}", values)


def _require_folder(path: Path) -> None:
    """Minutes of work should not end at a misspelt path."""
    if not path.parent.is_dir() or path.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {str(path.parent)!r}"
        raise UsageError(f"cannot write {str(path)!r}: {reason}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A bundled model, a diffusers folder or a hub name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to make.")],
    precision: Annotated[
        str | None,
        typer.Option(
            help="Bits of weights and activations: w8a8, w4a8, or w8a16 to w1a16 for weights alone. Default: w8a8."
        ),
    ] = None,
    weight_format: Annotated[
        str | None, typer.Option("--format", help="channel, block32, palette16, …; default: what suits the bits.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A JSON file that says precision and format, and choices for single layers.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="ddim, ddim-eta1, ddpm or dpmpp-2m.")] = "ddim",
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 50,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 1.0,
    method: Annotated[str, typer.Option(help="Correction method; see docs/method.md.")] = "tac",
    calibration_samples: Annotated[int, typer.Option(help="Trajectories the correction is solved on.")] = 48,
    seed: Annotated[int, typer.Option(help="Seed of the calibration noise.")] = 0,
    target: Annotated[
        list[str] | None,
        typer.Option(help="executorch or coreml; may be repeated. Default: all that have the precision."),
    ] = None,
    ios: Annotated[str, typer.Option(help="ios17 or ios18: the oldest system that the Core ML part is for.")] = "ios18",
    compute: Annotated[
        str, typer.Option(help="all, or ane for a Core ML network laid out for the Neural Engine.")
    ] = "all",
    chunk_megabytes: Annotated[
        float, typer.Option(help="Weights of one Core ML package; a network with more becomes several.")
    ] = 1000,
    workers: Annotated[int, typer.Option(help="Processes for lowering; 2 needs twice the memory.")] = 2,
    as_json: Json = False,
) -> None:
    """Quantize, lower, calibrate on the artifact, verify and publish a bundle."""
    from mobile_export.backends.backend import BackendOptions
    from mobile_export.export import export as run_export
    from mobile_export.export_settings import ExportSettings
    from mobile_export.inspection import bundle_figures, part_figures
    from mobile_export.quantize.recipe import Recipe

    if recipe is not None and (precision or weight_format):
        raise UsageError("a recipe says the precision and the format: leave --precision and --format out")
    settings = ExportSettings(
        recipe=Recipe.of(precision or "w8a8", weight_format) if recipe is None else Recipe.read(recipe),
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        method=method,
        calibration_samples=calibration_samples,
        seed=seed,
        targets=tuple(target or ()),
        options=BackendOptions(workers, ios, compute, chunk_megabytes),
    )
    started = time.monotonic()
    try:
        with TerminalProgress() as progress:
            bundle = run_export(model, output, settings, progress)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; the same command goes on where it was")
        raise
    figures = bundle_figures(bundle) | {"written to": str(output), "seconds": round(time.monotonic() - started, 1)}
    _show_bundle(as_json, bundle.name, figures, {name: part_figures(bundle, name) for name in bundle.targets})


@app.command()
def simulate(
    bundle: BundlePath,
    count: Annotated[int, typer.Option("-n", help="How many images.")] = 16,
    seed: Annotated[int, typer.Option(help="Image k of a seed is always the same.")] = 0,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Only this class; default: the classes in turn.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="executorch or coreml; default: the first that the bundle has.")
    ] = None,
    no_correction: Annotated[bool, typer.Option("--no-correction", help="Leave the correction out.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="PNG file; default: BUNDLE-seedS.png.")] = None,
    as_json: Json = False,
) -> None:
    """Run the phone's loop on the real artifact: a PNG grid and numbers."""
    from mobile_export.bundle import Bundle
    from mobile_export.pictures import save_grid
    from mobile_export.simulate import simulate as run_simulation

    opened = Bundle.open(bundle)
    chosen = target or opened.targets[0]
    opened.part(chosen)
    suffix = (f"-{target}" if target else "") + ("-uncorrected" if no_correction else "")
    path = output or bundle.resolve().parent / f"{bundle.resolve().name}-seed{seed}{suffix}.png"
    _require_folder(path)
    started = time.monotonic()
    with TerminalProgress() as progress:
        progress.stage(f"simulate {opened.name} on {chosen}, {count} images")
        images, labels = run_simulation(opened, count, seed, class_name, not no_correction, chosen, progress.advance)
    seconds = time.monotonic() - started
    save_grid(path, images)
    figures = {
        "picture": str(path),
        "target": chosen,
        "images": len(images),
        "classes": ", ".join(dict.fromkeys(labels)) or "none",
        "corrected": not no_correction,
        "seconds per image": round(seconds / len(images), 3),
        "pixel mean": round(float(images.mean()), 4),
        "pixel standard deviation": round(float(images.std()), 4),
    }
    _show(as_json, f"{opened.name}, seed {seed}", figures)


@app.command()
def verify(bundle: BundlePath, target: Targets = None, as_json: Json = False) -> None:
    """Check every digest and binding of a bundle, and replay its golden images on its artifacts."""
    from mobile_export.bundle import Bundle
    from mobile_export.inspection import placement
    from mobile_export.verify import verify_bundle

    opened = Bundle.open(bundle)
    parts = {
        name: {
            "correction bound to artifact": result.artifact_sha256,
            "golden image equal to the bit": result.golden_equal,
            "golden image PSNR (dB)": round(result.golden_psnr_db, 1),
            **placement(result.delegates, result.undelegated),
            **({} if result.native_error is None else {"relative difference from Core ML itself": result.native_error}),
            "conversion parity, at export": opened.part(name)["conversion_parity"],
        }
        for name, result in verify_bundle(opened, tuple(target or ())).items()
    }
    figures = {"files, sizes and sha256 right": len(opened.manifest["files"])}
    _show_bundle(as_json, f"{opened.name}: verified", figures, parts)


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
    _show(as_json, title, figures)


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
    from mobile_export.evaluate import evaluate_all, figures_of
    from mobile_export.models.diffusion_model import load_model
    from mobile_export.report.page import write_report

    _require_folder(output)
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

    found = {}
    for name in zoo_names():
        model = load_model(name)
        found[name] = {
            "kind": type(model.unet).__name__,
            "parameters": sum(p.numel() for p in model.unet.parameters()),
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


if __name__ == "__main__":
    main()
