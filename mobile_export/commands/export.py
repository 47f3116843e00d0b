"""export: a model to a bundle."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from correction import UsageError
from correction.methods import DEFAULT_METHOD
from mobile_export.commands.app import Json, app, show_bundle
from mobile_export.terminal import TerminalProgress

NETWORKS, SAMPLING, TEXT, TARGETS = "What the networks become", "Sampling and correction", "Text and latents", "Targets"


EXAMPLES = """Examples:

mobile-export export emoji32 -o emoji --precision w4a8

mobile-export export ./sd -o sd --guidance 7.5 --steps 20 --prompts list.txt

mobile-export export ./sd -o sd --target coreml --precision w6a16

Then: mobile-export inspect sd; mobile-export simulate sd; mobile-export report sd"""


@app.command(epilog=EXAMPLES)
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A bundled model, a diffusers folder or a hub name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to make.")],
    precision: Annotated[
        str | None,
        typer.Option(
            help="Bits of weights and activations of the UNet: w8a8, w4a8, or w8a16 to w1a16 for weights alone. "
            "Default: w8a8.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    weight_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="channel, block32, palette16, …; default: what suits the bits.", rich_help_panel=NETWORKS
        ),
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(
            help="Ranges of 8-bit activations of the ExecuTorch part: dynamic, found at run time, or static, which is "
            "faster and further from the original. Default: dynamic.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file that says all of these, and choices for single layers.", rich_help_panel=NETWORKS
        ),
    ] = None,
    text_precision: Annotated[str, typer.Option(help="Of the text encoder.", rich_help_panel=NETWORKS)] = "w8a16",
    vae_precision: Annotated[
        str, typer.Option(help="Of the autoencoder, decoder and encoder.", rich_help_panel=NETWORKS)
    ] = "w8a16",
    sampler: Annotated[
        str | None,
        typer.Option(
            help="ddim, ddpm, euler, euler-a, dpmpp-2m, unipc, lcm, …; docs/schedulers.md has all. "
            "Default: ddim; lcm or tcd for a model that came with it.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps. Default: 50; 4 with lcm and tcd.", rich_help_panel=SAMPLING)
    ] = None,
    guidance: Annotated[
        float, typer.Option(help="Classifier-free guidance scale; 1 is none.", rich_help_panel=SAMPLING)
    ] = 1.0,
    method: Annotated[
        str, typer.Option(help="Correction method; see docs/method.md.", rich_help_panel=SAMPLING)
    ] = DEFAULT_METHOD,
    calibration_samples: Annotated[
        int, typer.Option(help="Trajectories the correction is solved on.", rich_help_panel=SAMPLING)
    ] = 48,
    range_samples: Annotated[
        int, typer.Option(help="Trajectories the activation ranges are fitted on.", rich_help_panel=SAMPLING)
    ] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the calibration noise.", rich_help_panel=SAMPLING)] = 0,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="A text file, a prompt a line: their embeddings go into the bundle instead of a text encoder.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What guidance leads away from.", rich_help_panel=TEXT)] = "",
    image_to_image: Annotated[
        bool, typer.Option("--image-to-image", help="Also take the encoder of images along.", rich_help_panel=TEXT)
    ] = False,
    latent_size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Size of what the UNet denoises, e.g. 64x96. Default: the model's.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="executorch or coreml; may be repeated. Default: all that have the precision.", rich_help_panel=TARGETS
        ),
    ] = None,
    ios: Annotated[
        str,
        typer.Option(help="ios17 or ios18: the oldest system that the Core ML part is for.", rich_help_panel=TARGETS),
    ] = "ios18",
    compute: Annotated[
        str,
        typer.Option(help="all, or ane for a Core ML network laid out for the Neural Engine.", rich_help_panel=TARGETS),
    ] = "all",
    chunk_megabytes: Annotated[
        float,
        typer.Option(
            help="Weights of one Core ML package; a network with more becomes several.", rich_help_panel=TARGETS
        ),
    ] = 1000,
    workers: Annotated[
        int, typer.Option(help="Processes for lowering; 2 needs twice the memory.", rich_help_panel=TARGETS)
    ] = 2,
    as_json: Json = False,
) -> None:
    """Make a bundle that a phone runs as it is.

    Each network of the model is quantized, written as a .pte (ExecuTorch) and an
    .mlpackage (Core ML), and compared with the quantized PyTorch model; the
    correction is solved on what the artifacts themselves compute. Nothing
    appears at the output before all checks have passed, and the same command
    goes on where an interrupted one was.
    """
    from mobile_export.backends.backend import BackendOptions
    from mobile_export.export import export as run_export
    from mobile_export.export_settings import ExportSettings
    from mobile_export.inspection import bundle_figures, part_figures
    from mobile_export.prompts import read_prompts
    from mobile_export.quantize.recipe import Recipe

    if recipe is not None and (precision or weight_format or activations):
        raise UsageError(
            "a recipe says precision, format and activations: leave --precision, --format and --activations out"
        )
    settings = ExportSettings(
        recipe=(
            Recipe.of(precision or "w8a8", weight_format, activations or "dynamic")
            if recipe is None
            else Recipe.read(recipe)
        ),
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        method=method,
        calibration_samples=calibration_samples,
        range_samples=range_samples,
        seed=seed,
        targets=tuple(target or ()),
        options=BackendOptions(workers, ios, compute, chunk_megabytes),
        text_recipe=Recipe.of(text_precision),
        vae_recipe=Recipe.of(vae_precision),
        prompts=() if prompts is None else read_prompts(prompts),
        negative_prompt=negative_prompt,
        image_to_image=image_to_image,
        latent_size=None if latent_size is None else _size(latent_size),
    )
    started = time.monotonic()
    try:
        with TerminalProgress() as progress:
            bundle = run_export(model, output, settings, progress)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; the same command goes on where it was")
        raise
    figures = bundle_figures(bundle) | {"written to": str(output), "seconds": round(time.monotonic() - started, 1)}
    show_bundle(as_json, bundle.name, figures, {name: part_figures(bundle, name) for name in bundle.targets})


def _size(text: str) -> tuple[int, int]:
    """ "64x96" -> (64, 96)."""
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if match is None:
        raise UsageError(f"a latent size looks like 64x96, height before width, got {text!r}")
    return int(match[1]), int(match[2])
