"""Part: the artifacts of one target with the correction of its UNet, golden vectors and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from correction import Denoiser, SamplingPlan, UsageError
from correction.calibrate import calibrate
from correction.calibration_result import CalibrationResult
from correction.file import write_correction
from correction.methods import find_method
from correction.schedulers import make_plan
from mobile_export.backends.artifact import ArtifactDenoiser
from mobile_export.backends.backend import Backend
from mobile_export.batch import Batch, make_batch
from mobile_export.bundle import path_digest
from mobile_export.export_settings import ExportSettings
from mobile_export.golden import Golden
from mobile_export.lowered import keep, kept, shipped
from mobile_export.models.component import COMPONENTS, Signature
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser
from mobile_export.progress import Progress
from mobile_export.prompts import CALIBRATION_PROMPTS
from mobile_export.subjects import Subjects, model_subjects

STREAM = "calibration"
CORRECTION = "correction.safetensors"
GOLDEN = "golden.safetensors"
RESUME = ".resume"  # folder of the work folder: what lets an interrupted export go on, a folder for each target
LOWERED, STATE, FINISHED = "lowered", "calibration.state", "finished.json"


@dataclass(frozen=True)
class Job:
    """What all parts of one export are made from. sampler: the name of the plan's."""

    model: DiffusionModel
    sampler: str
    plan: SamplingPlan
    settings: ExportSettings
    subjects: Subjects
    progress: Progress

    @classmethod
    def of(cls, model: DiffusionModel, settings: ExportSettings, progress: Progress | None = None) -> Job:
        """Plan and subjects for these settings. Raises UsageError for what the model does not have."""
        progress = progress or Progress()
        sampler, steps = settings.sampling(model.scheduler_class)
        plan = make_plan(sampler, model.scheduler_config, steps)
        if plan.needs_noise and find_method(settings.method).less_noise:
            raise UsageError(
                f"{settings.method} changes the noise that {sampler} adds, which a bundle does not: choose another "
                f"method, or a sampler that adds none"
            )
        prompts = settings.prompts or CALIBRATION_PROMPTS
        if model.text is not None:
            progress.stage(f"understand {len(prompts)} prompts")
        subjects = model_subjects(model, prompts, settings.guidance, settings.negative_prompt)
        return cls(model, sampler, plan, settings, subjects, progress)

    def batch(self, samples: range) -> Batch:
        """Noise of the calibration stream, subjects in turn."""
        rows = self.subjects.rows(self.subjects.turn(samples))
        return make_batch(self.settings.seed, STREAM, samples, self.model.sample_shape, rows)

    def guided(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser with the export's guidance."""
        return self.subjects.guided(denoiser)


def correct_part(backend: Backend, job: Job, unet: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Correct the target's UNet, whose artifact is in `work` and has this manifest entry, and record golden vectors.

    Returns what the manifest says of them (docs/bundle-format.md). What an interrupted export of the same model and
    settings left is taken over, its digests checked.
    """
    folder, resume = work / backend.name, work / RESUME / backend.name
    files = [shipped(backend, folder, "unet"), folder / CORRECTION, folder / GOLDEN]
    key = _calibration(job)
    steps = kept(resume / FINISHED, key, files)
    if steps is None:
        steps = _corrected(backend, job, Signature.from_dict(unet["signature"]), resume / STATE, *files)
        keep(resume / FINISHED, key, files, steps)
    return {
        "correction": f"{backend.name}/{CORRECTION}",
        "golden": f"{backend.name}/{GOLDEN}",
        "kept_steps": steps,
    }


def clear(work: Path, backends: Iterable[Backend]) -> None:
    """Remove what an interrupted run left and this one would not write again: it would be taken into the bundle."""
    wanted = []
    for backend in backends:
        folder, resume = work / backend.name, work / RESUME / backend.name
        wanted += [shipped(backend, folder, name) for name in COMPONENTS]
        wanted += [folder / CORRECTION, folder / GOLDEN, resume / STATE, resume / FINISHED]
        wanted += [resume / f"{LOWERED}-{name}.json" for name in COMPONENTS]
    for path in sorted(work.rglob("*"), reverse=True):  # what is in a folder before the folder
        if not any(path == each or each in path.parents or path in each.parents for each in wanted):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _corrected(
    backend: Backend, job: Job, signature: Signature, state: Path, artifact: Path, correction: Path, golden: Path
) -> list[bool]:
    """Solve the correction on the artifact and write both files; which steps are corrected."""
    settings = job.settings
    digest = path_digest(artifact)
    denoiser = job.guided(ArtifactDenoiser(backend.load(artifact, signature)))
    result = _calibrated(backend, job, denoiser, digest, state)
    write_correction(
        correction,
        job.plan,
        result.correction,
        {
            "artifact_sha256": digest,
            "model_kind": job.model.kind,
            "sampler": job.sampler,
            "guidance_scale": settings.guidance,
            "method": settings.method,
            "samples": settings.calibration_samples,
            "seed": settings.seed,
            "stream": STREAM,
        },
    )
    job.progress.stage(f"record golden vectors of the {backend.title} artifact")
    record = Golden.record(job.plan, denoiser, result.correction, job.model.sample_shape, job.subjects)
    save_file(record.arrays(), golden)
    golden.chmod(0o644)  # safetensors makes files that only their owner can read
    return [bool(step.any()) for step in result.kept]


def _calibrated(backend: Backend, job: Job, denoiser: Denoiser, digest: str, state: Path) -> CalibrationResult:
    settings, count = job.settings, job.settings.calibration_samples
    job.progress.stage(f"calibrate {settings.method} on the {backend.title} artifact, {count} trajectories")
    batch = job.batch(range(count))
    return calibrate(
        job.plan,
        job.guided(TorchDenoiser(job.model.unet)),
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


def _calibration(job: Job) -> str:
    """What the correction depends on besides the artifact."""
    settings = job.settings
    values = (job.sampler, settings.guidance, settings.method, settings.calibration_samples, settings.seed)
    return " ".join(map(str, (job.model.digest, job.plan.digest(), job.subjects.digest(), *values)))
