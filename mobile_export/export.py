"""Export: quantize each component once; for each target lower, calibrate on the artifact, verify; publish."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mobile_export.backends import get_backend
from mobile_export.backends.backend import Backend, Probe
from mobile_export.bundle import Bundle, publishing, write_manifest
from mobile_export.export_settings import ExportSettings, components_of
from mobile_export.lowered import lower_component
from mobile_export.memory import release_memory
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser, load_model
from mobile_export.part import LOWERED, RESUME, STREAM, Job, clear, correct_part
from mobile_export.progress import Progress
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantized_component import QuantizedComponent, quantize_network, quantize_unet
from mobile_export.text_files import write_constants, write_text
from mobile_export.verify import verify_bundle

LIBRARIES = ("torch", "diffusers", "transformers", "numpy")  # their versions decide about every part
OTHER_PROBES = 2  # inputs on which a component besides the UNet is observed and checked


def export(
    source: str | DiffusionModel, target: Path, settings: ExportSettings, progress: Progress | None = None
) -> Bundle:
    """Write a verified bundle of a model to `target`; nothing appears there before the end.

    source: as `load_model` takes it, or a model. Calibration runs on the artifacts' own outputs. An interrupted export
    goes on where it was. Raises UsageError for what cannot be done, CheckFailed when a check of an artifact fails.
    """
    progress = progress or Progress()
    if isinstance(source, str):
        progress.stage(f"load {source}")
    model = load_model(source, settings.latent_size) if isinstance(source, str) else source
    names = components_of(model.component_names, settings)
    backends = [get_backend(name, settings.options) for name in settings.targets]
    with publishing(target) as work:
        clear(work, backends)
        job = Job.of(model, settings, progress)
        components = _Components(backends, settings, work, progress)
        # One large network at a time: each is loaded, lowered for every target, and dropped.
        if "text_encoder" in names and model.text is not None:
            tokens = model.text.tokenize(job.subjects.names[:OTHER_PROBES])
            components.make(model, "text_encoder", settings.text_recipe, [{"input_ids": row[None]} for row in tokens])
        quantized, samples = quantize(job)
        model.release()
        components.add(quantized, model.reloads)
        parameters = quantized.component.parameters
        del quantized
        release_memory()
        parts = {each.name: correct_part(each, job, components.entries[each.name]["unet"], work) for each in backends}
        model.release()
        release_memory()
        latents = model.latents
        if latents is not None:
            given = [{"latents": latents.to_decoder(row[None])} for row in samples[:OTHER_PROBES]]
            images = components.make(model, "vae_decoder", settings.vae_recipe, given)
            if "vae_encoder" in names:
                components.make(model, "vae_encoder", settings.vae_recipe, [{"image": image} for image in images])
        progress.stage("verify the bundle")
        text = write_text(work, model.text, job.subjects if settings.prompts else None, settings.negative_prompt)
        constants = write_constants(work, job.subjects) if model.guided_by_input else None
        parts = {name: {"components": components.entries[name], **part} for name, part in parts.items()}
        write_manifest(work, _manifest(job, backends, parts, parameters) | {"text": text, "constants": constants})
        verify_bundle(Bundle.open(work))
        shutil.rmtree(work / RESUME)
    return Bundle.open(target)


def quantize(job: Job) -> tuple[QuantizedComponent, np.ndarray]:
    """The UNet, on trajectories of the reference; see `quantize_unet`."""
    settings = job.settings
    # Indices after the calibration samples, so that ranges and corrections are fitted on different noise.
    first = settings.calibration_samples
    batch = job.batch(range(first, first + settings.range_samples))
    job.progress.stage("load unet")
    reference = job.guided(TorchDenoiser(job.model.unet))
    origin = f"{job.plan.digest()} {job.subjects.digest()} {settings.guidance:g} {settings.seed}"
    unet = job.model.component("unet")
    return quantize_unet(unet, settings.recipe, job.plan, reference, batch, origin, job.progress)


class _Components:
    """entries: target -> component -> entry of the manifest, as artifacts are made."""

    def __init__(self, backends: Sequence[Backend], settings: ExportSettings, work: Path, progress: Progress) -> None:
        self.backends, self.settings, self.work, self.progress = backends, settings, work, progress
        self.entries: dict[str, dict[str, Any]] = {backend.name: {} for backend in backends}

    def add(self, quantized: QuantizedComponent, last_use: bool) -> None:
        """An artifact of it for every target; last_use: nobody will run its float network again."""
        name = quantized.component.name
        if last_use:
            _ = quantized.component.result  # found by a run, kept
            quantized.forget_floats()
        for backend in self.backends:
            folder, resume = self.work / backend.name, self.work / RESUME / backend.name
            folder.mkdir(exist_ok=True)
            resume.mkdir(parents=True, exist_ok=True)
            record = resume / f"{LOWERED}-{name}.json"
            options = self.settings.options
            self.entries[backend.name][name] = lower_component(
                backend, quantized, options, folder, record, self.progress
            )
            release_memory()

    def make(
        self, model: DiffusionModel, name: str, recipe: Recipe, given: Sequence[dict[str, np.ndarray]]
    ) -> list[np.ndarray]:
        """Load a component besides the UNet, quantize it and `add` it; what the float network gives for `given`."""
        probes = [Probe(inputs) for inputs in given]
        self.progress.stage(f"load {name}")
        quantized, results = quantize_network(model.component(name), recipe, probes, self.progress)
        self.add(quantized, model.reloads)
        return results


def _json_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration without what diffusers notes about itself, whose names begin with _."""
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    return json.loads(json.dumps(kept, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)))


def _manifest(job: Job, backends: Sequence[Backend], parts: dict[str, Any], parameters: int) -> dict[str, Any]:
    model, settings, latents = job.model, job.settings, job.model.latents
    channels, height, width = model.sample_shape
    factor = 1 if latents is None else latents.factor
    image = {
        "channels": channels if latents is None else latents.image_channels,
        "height": factor * height,
        "width": factor * width,
    }
    libraries = {name for backend in backends for name in backend.libraries}.union(LIBRARIES)
    return {
        "name": f"{model.name}-{settings.recipe.precision.name}",
        "model": {
            "name": model.name,
            "source": model.source,
            "digest": model.digest,
            "kind": model.kind,
            "pipeline": model.pipeline,
            "scheduler": model.scheduler_class,
            "scheduler_config": _json_values(model.scheduler_config),
            "parameters": parameters,
            "classes": list(model.classes),
            "notes": list(model.notes),
            "null_label": model.null_label,
        },
        "sample": {"channels": channels, "height": height, "width": width},
        "image": {**image, "range": [-1, 1]},
        "latents": None if latents is None else asdict(latents),
        "precision": settings.recipe.precision.name,
        "sampler": job.sampler,
        "steps": settings.sampling(model.scheduler_class)[1],  # as asked: a plan may have more rows
        "guidance": settings.guidance,
        "guidance_calls": 1 if job.subjects.scale == 1 else 2,
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
