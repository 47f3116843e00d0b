"""Export: quantize once; for each target lower, calibrate on the artifact, verify; publish."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from correction import SamplingPlan
from correction.schedulers import make_plan
from mobile_export.backends import get_backend
from mobile_export.backends.backend import Backend, Probe
from mobile_export.bundle import Bundle, publishing, write_manifest
from mobile_export.export_settings import ExportSettings
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser, load_model
from mobile_export.part import RESUME, STREAM, Job, calibration_batch, clear, make_part
from mobile_export.progress import Progress
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.table import QuantizationTable, quantize_layers
from mobile_export.simulate import guided, run
from mobile_export.verify import verify_bundle

LIBRARIES = ("torch", "diffusers", "numpy")  # their versions decide about every part


def export(source: str, target: Path, settings: ExportSettings, progress: Progress | None = None) -> Bundle:
    """Write a verified bundle of the model at `source` to `target`; nothing appears there before the end.

    Calibration runs on the artifacts' own outputs. An interrupted export goes on where it was.
    Raises UsageError for what cannot be done, CheckFailed when a check of an artifact fails.
    """
    progress = progress or Progress()
    progress.stage(f"load {source}")
    model = load_model(source)
    plan = make_plan(settings.sampler, model.scheduler_config, settings.steps)
    guided(TorchDenoiser(model.unet), settings.guidance, model.null_label)  # refuses guidance without a null class
    backends = [get_backend(name, settings.options) for name in settings.targets]
    with publishing(target) as work:
        clear(work, backends)
        table, probes = quantize(model, plan, settings, progress)
        job = Job(model, plan, settings, table, probes, work, progress)
        parts = {backend.name: make_part(backend, job) for backend in backends}
        progress.stage("verify the bundle")
        write_manifest(work, _manifest(job, backends, parts))
        verify_bundle(Bundle.open(work))
        shutil.rmtree(work / RESUME)
    return Bundle.open(target)


def quantize(
    model: DiffusionModel, plan: SamplingPlan, settings: ExportSettings, progress: Progress
) -> tuple[QuantizationTable, list[Probe]]:
    """Ranges from the reference's own trajectories, then every integer; a probe for each step from the same."""
    progress.stage(
        f"quantize to {settings.recipe.precision.name}: activation ranges on {settings.range_samples} trajectories"
    )
    # Indices after the calibration samples, so that ranges and corrections are fitted on different noise.
    first = settings.calibration_samples
    batch = calibration_batch(model, settings, range(first, first + settings.range_samples))
    probes: list[Probe] = []

    def observe(i: int, x: np.ndarray, _m: np.ndarray, _y: np.ndarray) -> None:
        label = None if batch.labels is None else int(batch.labels[0])
        probes.append(Probe((plan.input_scale[i] * x[:1]).astype(np.float32), float(plan.timestep[i]), label))
        progress.advance(i + 1, plan.steps)

    def sample_reference() -> None:
        denoiser = guided(TorchDenoiser(model.unet), settings.guidance, model.null_label)
        run(plan, denoiser, batch, on_step=observe)

    observations = observe_layers(model.unet, sample_reference)
    return quantize_layers(model.unet, observations, settings.recipe), probes


def _manifest(job: Job, backends: Sequence[Backend], parts: dict[str, Any]) -> dict[str, Any]:
    model, settings = job.model, job.settings
    channels, height, width = model.sample_shape
    libraries = {name for backend in backends for name in backend.libraries}.union(LIBRARIES)
    return {
        "name": f"{model.name}-{settings.recipe.precision.name}",
        "model": {
            "name": model.name,
            "source": model.source,
            "digest": model.digest,
            "kind": type(model.unet).__name__,
            "parameters": job.parameters,
            "classes": list(model.classes),
            "null_label": model.null_label,
        },
        "image": {"channels": channels, "height": height, "width": width, "range": [-1, 1]},
        "precision": settings.recipe.precision.name,
        "recipe": settings.recipe.as_dict(),
        "stored_bits": job.table.stored_bits(model.unet),
        "refitted_layers": {n: f"{a.name} -> {b.name}" for n, (a, b) in job.table.refitted().items()},
        "sampler": settings.sampler,
        "steps": job.plan.steps,
        "guidance": settings.guidance,
        "calibration": {
            "method": settings.method,
            "samples": settings.calibration_samples,
            "range_samples": settings.range_samples,
            "seed": settings.seed,
            "stream": STREAM,
        },
        "parts": parts,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in sorted(libraries)},
        },
    }
