"""Corrections side by side in bits that no artifact has (w6a8, w4a6, w3a8), in eager PyTorch: `make results`.

    python benchmarks/other_bits.py emoji32 build/results/emoji32-other-bits.study

What was measured before is taken over. The table goes into docs/corrections.md, too.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from one_thread import one_thread
from simulated_bits import PRECISIONS, simulated_recipe, simulated_rounding

from correction import Denoiser
from correction.methods import DEFAULT_METHOD
from mobile_export.backends.executorch.support import activations_of
from mobile_export.batch import run
from mobile_export.evaluate.bundle_study import picture_statistics, study_tables
from mobile_export.evaluate.comparison_table import require_place, write_into
from mobile_export.evaluate.network import Network
from mobile_export.evaluate.resnet56 import resnet56
from mobile_export.evaluate.study import SEEDS_AT_ONCE, Study
from mobile_export.evaluate.study_settings import Sampling, StudySettings
from mobile_export.export_settings import ExportSettings
from mobile_export.models.diffusion_model import TorchDenoiser, load_model
from mobile_export.part import Job
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.observed_layer import Observe, observing
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import quantize_layers
from mobile_export.terminal import TerminalProgress

DOCUMENT = Path("docs/corrections.md")
SETTINGS = StudySettings((Sampling("ddim", 20),), (DEFAULT_METHOD, "tac", "ptqd", "d2-dpm"), count=128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path, help="for what was measured")
    arguments = parser.parse_args()
    model, place = load_model(arguments.model), f"{Path(arguments.model).name}-other-bits"
    require_place(DOCUMENT, place)
    job = Job.of(model, ExportSettings(Recipe.of("w8a8"), targets=("executorch",)))
    fitting = job.batch(range(job.settings.range_samples))

    def sample_reference() -> None:
        run(job.plan, TorchDenoiser(model.unet), fitting)

    observations = observe_layers(model.unet, sample_reference)
    networks = []
    for precision in PRECISIONS:
        table = activations_of(quantize_layers(model.unet, observations, simulated_recipe(precision, model)))
        denoiser = _rounded(quantized_model(model.unet, table), simulated_rounding(precision))
        digest = hashlib.sha256(f"{precision} {model.digest}".encode()).hexdigest()
        networks.append(Network(f"{model.name}-{precision}, simulated", denoiser, digest, SEEDS_AT_ONCE))
    statistics = picture_statistics(model, None, resnet56(), model.sample_shape)
    with TerminalProgress() as progress:
        study = Study(model, networks, job.subjects, SETTINGS, arguments.folder / "outcomes", progress)
        found = study_tables(study, arguments.folder, DEFAULT_METHOD, statistics)
    write_into(DOCUMENT, place, found.text)
    print(found.text)


def _rounded(network: Any, rounding: Observe | None) -> Denoiser:
    """The network as a denoiser, its activations rounded once more, where asked."""
    plain = TorchDenoiser(network)
    if rounding is None:
        return plain

    def denoiser(sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
        with observing(network, rounding):
            return plain(sample, timestep, **conditioning)

    return denoiser


if __name__ == "__main__":
    one_thread()
    main()
