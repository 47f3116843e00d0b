"""What the choices of the base quantizer bring, without any correction, in eager PyTorch.

    python benchmarks/base_quantizer.py emoji32

Compares, at w8a8 and w4a8, the image convolutions in 8 bit or float32; 4-bit weights rounded to nearest or with a view
to their inputs, and 8 bits for the layers that need them most, within a size; then the weight formats of the
weight-only precisions. Per row: bits per weight with scales and palettes, signal-to-noise ratio of the noise estimate
at the reference's own samples (dB, mean over steps), and image PSNR of free-running sampling, on held-out noise. Prints
a Markdown table.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from mobile_export.batch import make_batch, run
from mobile_export.budget import budget_recipe
from mobile_export.export_settings import ExportSettings
from mobile_export.metrics import psnr, snr
from mobile_export.models.diffusion_model import TorchDenoiser, load_model
from mobile_export.part import Job
from mobile_export.quantize.observation import InputCorrelation, observe_layers
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import KEPT_IN_FLOAT, Recipe
from mobile_export.quantize.table import quantize_layers
from mobile_export.quiet import quiet_third_parties

SEEDS = 8
BUDGETS = (3_000_000, 3_200_000, 3_500_000)
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
    model = load_model(parser.parse_args().model)
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

    def row(name: str, recipe: Recipe, observed: Any = observations) -> None:
        table = quantize_layers(model.unet, observed, recipe)
        twin = TorchDenoiser(quantized_model(model.unet, table))
        steps = range(0, plan.steps, 7)
        estimates = [twin(seen[i][0], float(plan.timestep[i]), **batch.conditioning) for i in steps]
        ratio = np.mean([snr(seen[i][1], estimate) for i, estimate in zip(steps, estimates, strict=True)])
        image = psnr(np.clip(run(plan, twin, batch), -1, 1), exact).mean()
        print(f"| {name} | {table.stored_bits(model.unet):.2f} | {ratio:.1f} | {image:.1f} |", flush=True)

    print("| form | bits per weight | noise estimate SNR (dB) | image PSNR (dB) |\n|---|---|---|---|")
    everywhere = {"precision": "w8a8", "layers": dict.fromkeys(KEPT_IN_FLOAT, "w8")}
    row("w8a8, all layers 8 bit", Recipe.from_dict(everywhere))
    row("w8a8, image convolutions float32", Recipe.of("w8a8"))
    row("w4a8, rounded to nearest", Recipe.of("w4a8"), nearest)
    row("w4a8, rounded with a view to the inputs", Recipe.of("w4a8"))
    for budget in BUDGETS:
        found = budget_recipe(replace(job, settings=replace(settings, recipe=Recipe.of("w4a8"))), budget)
        row(f"the same, 8 bits where they help most, {budget / 1e6:g} MB", found.recipe)
    for precision, formats in WEIGHT_ONLY.items():
        for form in formats:
            row(f"{precision}, {form}", Recipe.of(precision, form))


if __name__ == "__main__":
    quiet_third_parties()
    main()
