"""What the choices of the base quantizer bring, alone and together, without any correction, in eager PyTorch.

    python benchmarks/base_quantizer.py emoji32

Compares, at w8a8 and w4a8: static ranges of activations or ranges found at run time; the image convolutions in 8 bit or
float32; weights rounded to nearest or with a view to their inputs; shortcuts in 4 bits, in 8, or in 8 with inputs that
are not rounded ("w8a16"); 8 bits for the layers that need them most, within a size; the time path in other bits; ranges
of their own for the two halves of a concatenated skip; then bits that no artifact has ("simulated alone"), and the
weight formats of the weight-only precisions. Per row: bits per weight with scales and palettes, signal-to-noise ratio
of the noise estimate at the reference's own samples (dB, mean over steps), and image PSNR of free-running sampling, on
held-out noise. The table goes into docs/results.md, too.
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from one_thread import one_thread
from simulated_bits import PRECISIONS, simulated_recipe, simulated_rounding
from torch import Tensor, nn

from mobile_export.backends.executorch.support import activations_of
from mobile_export.batch import make_batch, run
from mobile_export.budget import budget_recipe, parse_bytes
from mobile_export.evaluate.comparison_table import line, require_place, write_into
from mobile_export.export_settings import ExportSettings
from mobile_export.metrics import psnr, snr
from mobile_export.models.diffusion_model import TorchDenoiser, load_model
from mobile_export.part import Job
from mobile_export.quantize.observation import InputCorrelation, observe_layers
from mobile_export.quantize.observed_layer import Observe, observing
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import KEPT_IN_FLOAT, Recipe
from mobile_export.quantize.table import matrix_layers, quantize_layers

DOCUMENT = Path("docs/results.md")
BUDGETS = ("3MB", "3.2MB", "3.5MB")
SEEDS = 8
WEIGHT_ONLY = {
    "w8a16": ("channel", "block32"),
    "w6a16": ("palette16", "palette"),
    "w4a16": ("channel", "block32", "palette16", "palette"),
    "w3a16": ("palette16", "palette"),
    "w2a16": ("palette16", "palette"),
    "w1a16": ("palette16", "palette"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--budget", nargs="*", default=BUDGETS, help="sizes of the artifact at w4a8, as 3MB")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    place = f"{model.name}-base-quantizer"
    require_place(DOCUMENT, place)
    settings = ExportSettings(Recipe.of("w8a8"), targets=("executorch",))
    job = Job.of(model, settings)
    plan, reference, fitting = job.plan, TorchDenoiser(model.unet), job.batch(range(settings.range_samples))

    def sample_reference() -> None:
        run(plan, reference, fitting)

    observations = observe_layers(model.unet, sample_reference)
    nearest = {name: replace(seen, correlation=InputCorrelation()) for name, seen in observations.items()}
    rows = job.subjects.rows(job.subjects.turn(range(SEEDS)))
    batch = make_batch(0, "evaluation", range(SEEDS), model.sample_shape, rows)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    exact = np.clip(run(plan, reference, batch, on_step=lambda i, x, m, y: seen.append((x, m))), -1, 1)

    head = ("form", "bits per weight", "noise estimate SNR (dB)", "image PSNR (dB)")
    lines = [line(head), line("---" for _ in head)]

    def row(name: str, recipe: Recipe, observed: Any = observations, rounding: Observe | None = None) -> None:
        table = activations_of(quantize_layers(model.unet, observed, recipe))
        network = quantized_model(model.unet, table)
        twin, steps = TorchDenoiser(network), range(0, plan.steps, 7)
        with contextlib.nullcontext() if rounding is None else observing(network, rounding):
            estimates = [twin(seen[i][0], float(plan.timestep[i]), **batch.conditioning) for i in steps]
            image = psnr(np.clip(run(plan, twin, batch), -1, 1), exact).mean()
        ratio = np.mean([snr(seen[i][1], estimate) for i, estimate in zip(steps, estimates, strict=True)])
        lines.append(line([name, f"{table.stored_bits(model.unet):.2f}", f"{ratio:.1f}", f"{image:.1f}"]))
        print(lines[-1], flush=True)

    names = [name for name, _ in matrix_layers(model.unet)]
    shortcuts = [name for name in names if name.endswith("conv_shortcut")]
    time = [name for name in names if "time_emb" in name]

    def recipe(precision: str, activations: str, **layers: str) -> Recipe:
        return Recipe.from_dict({"precision": precision, "activations": activations, "layers": layers})

    image = dict.fromkeys(KEPT_IN_FLOAT, "w8")
    for form, kind, observed, layers in (
        ("rounded to nearest, static ranges, shortcuts w8, all layers", "static", nearest, image),
        ("rounded to nearest, static ranges, shortcuts w8", "static", nearest, {}),
        ("rounded to nearest, ranges at run time, shortcuts w8, all layers", "dynamic", nearest, image),
        ("rounded to nearest, ranges at run time, shortcuts w8", "dynamic", nearest, {}),
        ("rounded with a view to the inputs, ranges at run time, shortcuts w8", "dynamic", observations, {}),
    ):
        row(f"w8a8, {form}", recipe("w8a8", kind, **dict.fromkeys(shortcuts, "w8"), **layers), observed)
    row("w8a8, rounded to nearest, ranges at run time, shortcuts w8a16", recipe("w8a8", "dynamic"), nearest)
    row("w8a8, rounded with a view to the inputs, static ranges, shortcuts w8a16", recipe("w8a8", "static"))
    row("**w8a8**, rounded with a view to the inputs, ranges at run time, shortcuts w8a16", recipe("w8a8", "dynamic"))
    for short in ("w4", "w8", "w8a16"):
        for observed, rounded in ((nearest, "to nearest"), (observations, "with a view to the inputs")):
            for kind, ranges in (("static", "static ranges"), ("dynamic", "ranges at run time")):
                default = short == "w8a16" and observed is observations and kind == "dynamic"
                name = f"{'**w4a8**' if default else 'w4a8'}, rounded {rounded}, {ranges}, shortcuts {short}"
                row(name, recipe("w4a8", kind, **dict.fromkeys(shortcuts, short)), observed)
    for budget in arguments.budget:
        found = budget_recipe(replace(job, settings=replace(settings, recipe=Recipe.of("w4a8"))), parse_bytes(budget))
        row(f"w4a8, 8 bits where they help most, {budget}", found.recipe)
    row("w4a8, image convolutions 8 bit", recipe("w4a8", "dynamic", **image))
    for choice, about in (("w4", "4 bit"), ("float", "float32")):
        row(f"w4a8, time path {about}", recipe("w4a8", "dynamic", **dict.fromkeys(time, choice)))
    halves = _halves_apart(_first_halves(model.unet))
    for precision in ("w8a8", "w4a8"):
        apart = recipe(precision, "dynamic", **dict.fromkeys(shortcuts, "w8"))
        row(f"{precision}, shortcuts w8, halves of a skip apart, simulated alone", apart, rounding=halves)
    for precision in PRECISIONS:
        rounding = simulated_rounding(precision)
        row(f"{precision}, simulated alone", simulated_recipe(precision, model), rounding=rounding)
    for precision, formats in WEIGHT_ONLY.items():
        for form in formats:
            row(f"{precision}, {form}", Recipe.of(precision, form))
    write_into(DOCUMENT, place, "\n".join(lines))


def _first_halves(unet: Any) -> dict[str, int]:
    """Shortcuts of concatenated skips -> how many of their inputs came up, not across."""
    found: dict[str, int] = {}
    above = unet.mid_block.resnets[-1].out_channels
    for i, block in enumerate(unet.up_blocks):
        for j, residual in enumerate(block.resnets):
            found[f"up_blocks.{i}.resnets.{j}.conv_shortcut"] = above
            above = residual.out_channels
    return found


def _halves_apart(first: dict[str, int]) -> Observe:
    """Each half of the inputs of these 1x1 convolutions on a range of its own."""

    def rounded(point: str, grid: nn.Module, x: Tensor, result: Tensor) -> Tensor:
        count = first.get(point.removesuffix(".input"))
        return result if count is None else torch.cat([grid(x[:, :count]), grid(x[:, count:])], 1)

    return rounded


if __name__ == "__main__":
    one_thread()
    main()
