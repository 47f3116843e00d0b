"""recipe: which layers need more bits, within a size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mobile_export.commands.app import Json, app, require_folder
from mobile_export.terminal import TerminalProgress


@app.command()
def recipe(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A bundled model, a diffusers folder or a hub name.")],
    budget: Annotated[str, typer.Option(help="Size of the UNet's artifact, as 3.5MB.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write, for export --recipe.")],
    precision: Annotated[str, typer.Option(help="What the other layers have: w4a8, or w4a16 and fewer.")] = "w4a8",
    sampler: Annotated[str | None, typer.Option(help="Whose samples the layers see. Default: as export.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps. Default: as export.")] = None,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 1.0,
    range_samples: Annotated[int, typer.Option(help="Trajectories that the layers are seen on.")] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    as_json: Json = False,
) -> None:
    """Find the layers that need 8 bits most, within a size budget, and write a recipe."""
    from mobile_export.budget import budget_recipe, parse_bytes
    from mobile_export.export_settings import ExportSettings
    from mobile_export.models.diffusion_model import load_model
    from mobile_export.part import Job
    from mobile_export.quantize.recipe import Recipe
    from mobile_export.quantize.sensitivity import as_rows

    require_folder(output)
    allowed = parse_bytes(budget)
    settings = ExportSettings(Recipe.of(precision), sampler, steps, guidance, range_samples=range_samples, seed=seed)
    with TerminalProgress() as progress:
        progress.stage(f"load {model}")
        found = budget_recipe(Job.of(load_model(model), settings, progress), allowed)
    output.write_text(json.dumps(found.recipe.as_dict(), indent=1) + "\n", encoding="utf-8")
    rows = as_rows(found.sensitivities, found.recipe)
    if as_json:
        print(json.dumps({"recipe": str(output), "estimated bytes": found.estimate, "layers": rows}, indent=1))
        return
    table = Table("layer", "output error", "bytes for 8 bits", "becomes", title=f"{model} within {allowed:,} bytes")
    for row in rows:
        table.add_row(*(f"{v:.2e}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(highlight=False).print(table)
    Console(highlight=False, soft_wrap=True).print(f"about {found.estimate:,} bytes; recipe: {output.resolve()}")
