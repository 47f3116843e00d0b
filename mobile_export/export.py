"""Export: quantize, lower, calibrate on the artifact, verify, publish."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from correction import SamplingPlan, UsageError
from correction.calibrate import CalibrationResult, calibrate
from correction.file import write_correction
from correction.methods import find_method
from correction.schedulers import make_plan
from mobile_export.backends import get_backend
from mobile_export.backends.backend import Backend, BackendOptions, Parity, Probe
from mobile_export.bundle import Bundle, file_sha256, publishing, write_manifest
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser, load_model
from mobile_export.progress import Progress
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.precision import Precision
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable, quantize_layers
from mobile_export.simulate import Batch, guided, make_batch, run
from mobile_export.verify import GOLDEN, golden_record, verify_bundle

STREAM = "calibration"
PROBES = 5  # timesteps at which conversion parity is checked


@dataclass(frozen=True)
class ExportSettings:
    """What `export` makes of a model.

    sampler: a name of correction.schedulers.SAMPLERS; steps: 1 to 4096; guidance: 1 is none;
    method: a name of correction.methods.METHODS; calibration_samples: trajectories the correction
    is solved on, a quarter of them held out; range_samples: reference trajectories on which the
    activation ranges are fitted; workers: processes that lower side by side (more than 1 needs a
    main module that can be imported). Raises UsageError for values out of range.
    """

    precision: Precision
    sampler: str = "ddim"
    steps: int = 50
    guidance: float = 1.0
    method: str = "tac"
    calibration_samples: int = 48
    range_samples: int = 12
    seed: int = 0
    backend: str = "executorch"
    workers: int = 1

    def __post_init__(self) -> None:
        find_method(self.method)
        get_backend(self.backend)
        for name, low, high in (
            ("steps", 1, 4096),
            ("workers", 1, 64),
            ("calibration_samples", 4, 4096),
            ("range_samples", 1, 4096),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name.replace('_', ' ')} must be {low} to {high}, got {value}")
        if not (np.isfinite(self.guidance) and 0 < self.guidance <= 100):
            raise UsageError(f"guidance must be above 0 and at most 100, got {self.guidance}")


def export(source: str, target: Path, settings: ExportSettings, progress: Progress | None = None) -> Bundle:
    """Write a verified bundle of the model at `source` to `target`; nothing appears there before the end.

    Calibration runs on the artifact's own outputs. An interrupted export goes on where it was.
    Raises UsageError for what cannot be done, CheckFailed when a check of the artifact fails.
    """
    progress = progress or Progress()
    progress.stage(f"load {source}")
    model = load_model(source)
    plan = make_plan(settings.sampler, model.scheduler_config, settings.steps)
    null = model.null_label
    guided(TorchDenoiser(model.unet), settings.guidance, null)  # refuses guidance without a null class at once
    backend = get_backend(settings.backend, BackendOptions(settings.workers))
    with publishing(target) as work:
        _clear(work, backend)
        table, probes = quantize(model, plan, settings, progress)
        folder = work / backend.name
        folder.mkdir(exist_ok=True)
        artifact = folder / backend.artifact
        parity = _lower(backend, model, table, artifact, probes, work, progress)
        denoiser = guided(backend.load(artifact), settings.guidance, null)
        result = _calibrate(model, plan, denoiser, settings, file_sha256(artifact), work, progress)
        write_correction(
            folder / "correction.safetensors",
            plan,
            result.correction,
            {
                "artifact_sha256": file_sha256(artifact),
                "model_kind": type(model.unet).__name__,
                "sampler": settings.sampler,
                "guidance_scale": settings.guidance,
                "method": settings.method,
                "samples": settings.calibration_samples,
                "seed": settings.seed,
                "stream": STREAM,
            },
        )
        progress.stage("record golden vectors and verify the bundle")
        save_file(golden_record(plan, denoiser, result.correction, model), work / GOLDEN)
        (work / GOLDEN).chmod(0o644)  # safetensors makes files that only their owner can read
        write_manifest(work, _manifest(model, plan, settings, table, backend, artifact, parity, result))
        verify_bundle(Bundle.open(work))
    return Bundle.open(target)


def quantize(
    model: DiffusionModel, plan: SamplingPlan, settings: ExportSettings, progress: Progress
) -> tuple[QuantizationTable, list[Probe]]:
    """Ranges from the reference's own trajectories, then every integer; probes from the same trajectories."""
    progress.stage(f"quantize to {settings.precision.name}: activation ranges on {settings.range_samples} trajectories")
    # Indices after the calibration samples, so that ranges and corrections are fitted on different noise.
    first = settings.calibration_samples
    batch = calibration_batch(model, settings, range(first, first + settings.range_samples))
    probes: list[Probe] = []
    chosen = set(np.linspace(0, plan.steps - 1, min(PROBES, plan.steps)).round().astype(int).tolist())

    def observe(i: int, x: np.ndarray, _m: np.ndarray, _y: np.ndarray) -> None:
        if i in chosen:
            label = None if batch.labels is None else int(batch.labels[0])
            probes.append(Probe((plan.input_scale[i] * x[:1]).astype(np.float32), float(plan.timestep[i]), label))
        progress.advance(i + 1, plan.steps)

    def sample_reference() -> None:
        denoiser = guided(TorchDenoiser(model.unet), settings.guidance, model.null_label)
        run(plan, denoiser, batch, on_step=observe)

    observations = observe_layers(model.unet, sample_reference)
    return quantize_layers(model.unet, observations, Recipe.of(settings.precision.name)), probes


def calibration_batch(model: DiffusionModel, settings: ExportSettings, samples: range) -> Batch:
    """Noise of the calibration stream, classes in turn."""
    labels = [k % len(model.classes) for k in samples] if model.conditional else None
    return make_batch(settings.seed, STREAM, samples, model.sample_shape, labels)


def _clear(work: Path, backend: Backend) -> None:
    """Remove what an interrupted run left and this one would not write again: it would be taken into the bundle."""
    resumable = {work / "lowered.json", work / "calibration.state", work / backend.name / backend.artifact}
    for path in work.rglob("*"):
        if path.is_file() and path not in resumable:
            path.unlink()


def _lower(
    backend: Backend,
    model: DiffusionModel,
    table: QuantizationTable,
    artifact: Path,
    probes: list[Probe],
    work: Path,
    progress: Progress,
) -> Parity:
    """The checked artifact; one that an interrupted run left is taken again if its digests fit."""
    record = work / "lowered.json"
    key = _table_digest(model, table)
    if record.is_file() and artifact.is_file():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # killed while it was written: lower again
            kept = json.loads(record.read_text())
            if kept["key"] == key and kept["sha256"] == file_sha256(artifact):
                return Parity(**{**kept["parity"], "timesteps": tuple(kept["parity"]["timesteps"])})
    exported = backend.export(model, table, artifact, progress)
    progress.stage("conversion parity: artifact against the quantized PyTorch model, in lock-step")
    parity = backend.check_parity(model, table, artifact, exported, probes)
    record.write_text(json.dumps({"key": key, "sha256": file_sha256(artifact), "parity": asdict(parity)}))
    return parity


def _calibrate(
    model: DiffusionModel,
    plan: SamplingPlan,
    denoiser: Any,
    settings: ExportSettings,
    artifact_sha256: str,
    work: Path,
    progress: Progress,
) -> CalibrationResult:
    progress.stage(f"calibrate {settings.method} on the artifact, {settings.calibration_samples} trajectories")
    batch = calibration_batch(model, settings, range(settings.calibration_samples))
    reference = guided(TorchDenoiser(model.unet), settings.guidance, model.null_label)
    result = calibrate(
        plan,
        reference,
        denoiser,
        batch.noise,
        settings.method,
        batch.conditioning,
        batch.step_noise if plan.needs_noise else None,
        progress.advance,
        state_file=work / "calibration.state",
        tag=artifact_sha256,
    )
    (work / "lowered.json").unlink(missing_ok=True)
    return result


def _manifest(
    model: DiffusionModel,
    plan: SamplingPlan,
    settings: ExportSettings,
    table: QuantizationTable,
    backend: Backend,
    artifact: Path,
    parity: Parity,
    result: CalibrationResult,
) -> dict[str, Any]:
    channels, height, width = model.sample_shape
    description = backend.describe(artifact)
    parameters = sum(p.numel() for p in model.unet.parameters())
    return {
        "name": f"{model.name}-{settings.precision.name}",
        "model": {
            "name": model.name,
            "source": model.source,
            "digest": model.digest,
            "kind": type(model.unet).__name__,
            "parameters": parameters,
            "classes": list(model.classes),
            "null_label": model.null_label,
        },
        "image": {"channels": channels, "height": height, "width": width, "range": [-1, 1]},
        "precision": settings.precision.name,
        "sampler": settings.sampler,
        "steps": plan.steps,
        "guidance": settings.guidance,
        "calibration": {
            "method": settings.method,
            "samples": settings.calibration_samples,
            "range_samples": settings.range_samples,
            "seed": settings.seed,
            "stream": STREAM,
            "kept_steps": [bool(kept.any()) for kept in result.kept],
        },
        "parts": {
            backend.name: {
                "unet": f"{backend.name}/{backend.artifact}",
                "correction": f"{backend.name}/correction.safetensors",
                "conversion_parity": asdict(parity),
                "weight_bits_asked": settings.precision.weight_bits,
                "weight_bits_achieved": table.weight_bits_achieved(model.unet),
                "float_layers": table.float_layers(model.unet),
                "ideal_bytes": settings.precision.weight_bits * parameters // 8,
                "description": asdict(description),
            }
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "executorch", "diffusers", "numpy")},
        },
    }


def _table_digest(model: DiffusionModel, table: QuantizationTable) -> str:
    version = importlib.metadata.version("executorch")
    return hashlib.sha256(f"{model.digest} {table.digest()} {version}".encode()).hexdigest()
