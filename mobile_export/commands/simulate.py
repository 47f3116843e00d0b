"""simulate: images of a bundle, drawn on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from correction import UsageError
from mobile_export.commands.app import BundlePath, Json, app, require_folder, show
from mobile_export.terminal import TerminalProgress


@app.command()
def simulate(
    bundle: BundlePath,
    count: Annotated[int | None, typer.Option("-n", help="How many images. Default: 16, or 1 of each prompt.")] = None,
    seed: Annotated[int, typer.Option(help="Image k of a seed is always the same.")] = 0,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Only this class; default: the classes in turn.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw; may be repeated.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What guidance leads away from.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture to start from (image to image).")] = None,
    strength: Annotated[float, typer.Option(help="Share of the steps done from the picture on.")] = 0.8,
    steps: Annotated[int | None, typer.Option(help="Default: those of the bundle, which have a correction.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Default: that of the bundle, which has a correction.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Default: that of the bundle, which has a correction.")] = None,
    noise: Annotated[
        str, typer.Option(help="philox, as on the phone, or torch: the noise of a diffusers pipeline of this seed.")
    ] = "philox",
    target: Annotated[
        str | None, typer.Option(help="executorch or coreml; default: the first that the bundle has.")
    ] = None,
    no_correction: Annotated[bool, typer.Option("--no-correction", help="Leave the correction out.")] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Run the float model that the bundle was made from instead.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="PNG file; default: BUNDLE-seedS.png.")] = None,
    as_json: Json = False,
) -> None:
    """Run the phone's loop on the real artifacts: a PNG grid and numbers."""
    from mobile_export.bundle import Bundle
    from mobile_export.models.diffusion_model import load_model
    from mobile_export.models.reference import reference_images
    from mobile_export.pictures import read_picture, save_grid
    from mobile_export.simulate import Simulation, bundle_request, draw

    if reference and target:
        raise UsageError("--reference is the float model: leave --target out")
    opened = Bundle.open(bundle)
    chosen = target or opened.targets[0]
    opened.part(chosen)
    what = ("-reference" if reference else "") + (f"-{target}" if target else "")
    suffix = what + ("-uncorrected" if no_correction else "")
    path = output or bundle.resolve().parent / f"{bundle.resolve().name}-seed{seed}{suffix}.png"
    require_folder(path)
    if count is None:
        count = 16 if opened.manifest["text"] is None else 1
    asked = {"steps": steps, "guidance": guidance, "sampler": sampler, "negative_prompt": negative_prompt}
    changes: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    if prompt:
        changes["prompts"] = tuple(each for each in prompt for _ in range(count))
    if image is not None:
        size = opened.manifest["image"]
        changes |= {"image": read_picture(image, size["height"], size["width"]), "strength": strength}
    request = bundle_request(opened, count, class_name, seed=seed, noise=noise, **changes)
    started = time.monotonic()
    with TerminalProgress() as progress:
        progress.stage(f"simulate {opened.name} on {chosen}, {request.samples} images")
        if reference:
            model = load_model(opened.manifest["model"]["source"])
            found = Simulation(reference_images(model, request), request.prompts, "it is the reference")
        else:
            found = draw(opened, request, chosen, not no_correction, progress)
    seconds = time.monotonic() - started
    save_grid(path, found.images)
    figures = {
        "picture": str(path),
        "target": "reference" if reference else chosen,
        "images": len(found.images),
        "prompts" if request.prompts else "classes": ", ".join(dict.fromkeys(filter(None, found.names))) or "none",
        "corrected": not found.uncorrected,
        **({"not corrected, because": found.uncorrected} if found.uncorrected else {}),
        "seconds per image": round(seconds / len(found.images), 3),
        "pixel mean": round(float(found.images.mean()), 4),
        "pixel standard deviation": round(float(found.images.std()), 4),
    }
    show(as_json, f"{opened.name}, seed {seed}", figures)
