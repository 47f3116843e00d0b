"""Part: one artifact of a bundle with its correction, golden vectors and figures, made in the export's work folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from correction import Denoiser, SamplingPlan
from correction.calibrate import CalibrationResult, calibrate
from correction.file import write_correction
from mobile_export.backends.backend import Backend, Parity, Probe
from mobile_export.bundle import path_digest
from mobile_export.export_settings import ExportSettings
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser
from mobile_export.progress import Progress
from mobile_export.quantize.table import QuantizationTable
from mobile_export.simulate import Batch, guided, make_batch
from mobile_export.verify import golden_record

STREAM = "calibration"
CORRECTION = "correction.safetensors"
GOLDEN = "golden.safetensors"
RESUME = ".resume"  # folder of the work folder: what lets an interrupted export go on, a folder for each target
LOWERED, STATE, FINISHED = "lowered.json", "calibration.state", "finished.json"


@dataclass(frozen=True)
class Job:
    """What all parts of one export are made from; folder: the export's work folder."""

    model: DiffusionModel
    plan: SamplingPlan
    settings: ExportSettings
    table: QuantizationTable
    probes: list[Probe]
    folder: Path
    progress: Progress

    @property
    def parameters(self) -> int:
        """How many numbers the network has."""
        return sum(parameter.numel() for parameter in self.model.unet.parameters())


def make_part(backend: Backend, job: Job) -> dict[str, Any]:
    """Write the part's files and return its entry of the manifest (docs/bundle-format.md).

    What an interrupted export of the same model and settings left is taken over, its digests checked.
    Raises CheckFailed when the artifact does not compute what the quantized model computes.
    """
    folder, resume = job.folder / backend.name, job.folder / RESUME / backend.name
    folder.mkdir(exist_ok=True)
    resume.mkdir(parents=True, exist_ok=True)
    others = [folder / CORRECTION, folder / GOLDEN]
    key = f"{_key(backend, job)} {_calibration(job)}"
    part = _kept(resume / FINISHED, key, [_shipped(backend, folder), *others])
    if part is None:
        part = _made(backend, job, resume, folder / backend.artifact, *others)
        _keep(resume / FINISHED, key, [_shipped(backend, folder), *others], part)
    return part


def _shipped(backend: Backend, folder: Path) -> Path:
    """Where the artifact of a finished part is: it may have been divided."""
    divided = folder / (backend.divided or backend.artifact)
    return divided if divided.exists() else folder / backend.artifact


def clear(work: Path, backends: Iterable[Backend]) -> None:
    """Remove what an interrupted run left and this one would not write again: it would be taken into the bundle."""
    kept = [_shipped(backend, work / backend.name) for backend in backends]
    kept += [work / backend.name / name for backend in backends for name in (CORRECTION, GOLDEN)]
    kept += [work / RESUME / backend.name / name for backend in backends for name in (LOWERED, STATE, FINISHED)]
    for path in sorted(work.rglob("*"), reverse=True):  # what is in a folder before the folder
        if not any(path == each or each in path.parents or path in each.parents for each in kept):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def calibration_batch(model: DiffusionModel, settings: ExportSettings, samples: range) -> Batch:
    """Noise of the calibration stream, classes in turn."""
    labels = [k % len(model.classes) for k in samples] if model.conditional else None
    return make_batch(settings.seed, STREAM, samples, model.sample_shape, labels)


def _made(backend: Backend, job: Job, resume: Path, artifact: Path, correction: Path, golden: Path) -> dict[str, Any]:
    model, settings, table = job.model, job.settings, job.table
    parity = _lowered(backend, job, artifact, resume / LOWERED)
    artifact = _shipped(backend, artifact.parent)
    digest = path_digest(artifact)
    denoiser = guided(backend.load(artifact), settings.guidance, model.null_label)
    result = _calibrated(backend, job, denoiser, digest, resume / STATE)
    write_correction(
        correction,
        job.plan,
        result.correction,
        {
            "artifact_sha256": digest,
            "model_kind": type(model.unet).__name__,
            "sampler": settings.sampler,
            "guidance_scale": settings.guidance,
            "method": settings.method,
            "samples": settings.calibration_samples,
            "seed": settings.seed,
            "stream": STREAM,
        },
    )
    job.progress.stage(f"record golden vectors of the {backend.title} artifact")
    save_file(golden_record(job.plan, denoiser, result.correction, model), golden)
    golden.chmod(0o644)  # safetensors makes files that only their owner can read
    return {
        "unet": f"{backend.name}/{artifact.name}",
        "correction": f"{backend.name}/{CORRECTION}",
        "golden": f"{backend.name}/{GOLDEN}",
        "kept_steps": [bool(kept.any()) for kept in result.kept],
        "conversion_parity": asdict(parity),
        "weight_bits_asked": settings.recipe.precision.weight_bits,
        "weight_bits_achieved": table.weight_bits_achieved(model.unet),
        "float_layers": table.float_layers(model.unet),
        "ideal_bytes": settings.recipe.precision.weight_bits * job.parameters // 8,
        "description": asdict(backend.describe(artifact)),
    }


def _lowered(backend: Backend, job: Job, artifact: Path, record: Path) -> Parity:
    """The checked artifact's parity; an artifact that an interrupted run left is taken again if its digest fits."""
    key = _key(backend, job)
    shipped = _shipped(backend, artifact.parent)
    kept = _kept(record, key, [shipped])
    if kept is not None:
        return Parity(**{**kept, "timesteps": tuple(kept["timesteps"])})
    record.unlink(missing_ok=True)
    for path in (artifact, shipped):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    exported = backend.export(job.model, job.table, artifact, job.progress)
    job.progress.stage(f"conversion parity: {backend.title} against the quantized PyTorch model, in lock-step")
    parity = backend.check_parity(job.model, job.table, artifact, exported, job.probes)
    _keep(record, key, [backend.finish(artifact, job.probes)], asdict(parity))
    return parity


def _calibrated(backend: Backend, job: Job, denoiser: Denoiser, digest: str, state: Path) -> CalibrationResult:
    model, settings = job.model, job.settings
    count = settings.calibration_samples
    job.progress.stage(f"calibrate {settings.method} on the {backend.title} artifact, {count} trajectories")
    batch = calibration_batch(model, settings, range(count))
    return calibrate(
        job.plan,
        guided(TorchDenoiser(model.unet), settings.guidance, model.null_label),
        denoiser,
        batch.noise,
        settings.method,
        batch.conditioning,
        batch.step_noise if job.plan.needs_noise else None,
        job.progress.advance,
        state_file=state,
        # One that takes a sample a call is given all at once, for the sake of the reference.
        batch_size=backend.batch if backend.batch > 1 else None,
        tag=digest,
    )


def _key(backend: Backend, job: Job) -> str:
    """Digest of everything that the artifact and its parity depend on."""
    options = job.settings.options
    versions = [f"{name} {importlib.metadata.version(name)}" for name in backend.libraries]
    parts = (
        job.model.digest,
        job.table.digest(),
        job.plan.digest(),
        options.ios,
        options.compute,
        f"{options.chunk_megabytes:g}",
        *versions,
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _calibration(job: Job) -> str:
    """What the correction depends on besides."""
    settings = job.settings
    values = (settings.sampler, settings.guidance, settings.method, settings.calibration_samples, settings.seed)
    return " ".join(map(str, values))


def _kept(record: Path, key: str, files: list[Path]) -> Any:
    """What an interrupted run noted, if it did so for this key and for files that are still the same; else None."""
    if record.is_file() and all(path.exists() for path in files):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # killed while it was written: made again
            kept = json.loads(record.read_text())
            if (kept["key"], kept["sha256"]) == (key, [path_digest(path) for path in files]):
                return kept["value"]
    return None


def _keep(record: Path, key: str, files: list[Path], value: Any) -> None:
    digests = [path_digest(path) for path in files]
    record.write_text(json.dumps({"key": key, "sha256": digests, "value": value}))
