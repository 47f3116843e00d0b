"""Evaluation of a bundle against its reference, on noise that calibration never saw."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from correction import CheckFailed, Correction, Denoiser, SamplingPlan, UsageError
from correction.loop import advance
from correction.schedulers import make_scheduler
from mobile_export.benchmark import step_time_ratio
from mobile_export.bundle import Bundle
from mobile_export.evaluation import Evaluation
from mobile_export.metrics import bootstrap, psnr, snr
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser, load_model
from mobile_export.progress import Progress
from mobile_export.simulate import Batch, bundle_denoiser, guided, make_batch, run

STREAM = "evaluation"
STRIP_STEPS = 8
STRIP_SAMPLES = 4
PARITY_SAMPLES = 2


@dataclass
class Trajectory:
    """samples: (N, T, C, H, W) float32 after each step, as the next step's network sees them, the last one
    being the images; strips: (K, S, C, H, W), the predicted clean images at the strip steps."""

    samples: np.ndarray
    strips: np.ndarray


@dataclass
class _Recorder:
    """Collects a run's trajectory through the device loop's on_step."""

    strip_steps: tuple[int, ...]
    samples: list[np.ndarray] = field(default_factory=list)
    strips: list[np.ndarray] = field(default_factory=list)

    def __call__(self, i: int, x: np.ndarray, _m: np.ndarray, y: np.ndarray) -> None:
        if i > 0:
            self.samples.append(x)
        if i in self.strip_steps:
            self.strips.append(np.clip(y, -1, 1))

    def finish(self, last: np.ndarray) -> Trajectory:
        return Trajectory(np.stack([*self.samples, last], 1), np.stack(self.strips, 1))


def evaluate(
    bundle: Bundle,
    count: int = 64,
    seed: int = 0,
    backend: str = "executorch",
    model: DiffusionModel | None = None,
    benchmark: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Everything the report shows about one bundle, over `count` seeds of the evaluation stream.

    model: the reference; by default loaded from where the manifest says the bundle came from. Its
    digest must be the manifest's. benchmark: also time the artifact beside the float32 one.
    Raises UsageError for a count below 2, CheckFailed for another reference.
    """
    progress = progress or Progress()
    if not 2 <= count <= 4096:
        raise UsageError(f"evaluation needs 2 to 4096 seeds, got {count}")
    manifest, part = bundle.manifest, bundle.part(backend)
    model = model or load_model(manifest["model"]["source"])
    if model.digest != manifest["model"]["digest"]:
        raise CheckFailed(f"{model.source} is not the model that {bundle.name} was made from (its digest differs)")
    file = bundle.correction_file(backend)
    plan, correction = file.plan, file.correction
    labels = [k % len(model.classes) for k in range(count)] if model.conditional else None
    batch = make_batch(seed, STREAM, range(count), model.sample_shape, labels)
    reference = guided(TorchDenoiser(model.unet), float(manifest["guidance"]), model.null_label)
    artifact = bundle_denoiser(bundle, backend)

    runs: dict[str, Trajectory] = {}
    for variant, denoiser, tables in (
        ("reference", reference, None),
        ("quantized", artifact, None),
        ("corrected", artifact, correction),
    ):
        progress.stage(f"{bundle.name}: {count} images, {variant}")
        runs[variant] = _record(plan, denoiser, batch, tables, 16 if variant == "reference" else 1, progress)

    images = {name: run.samples[:, -1] for name, run in runs.items()}
    shown = {name: np.clip(values, -1, 1) for name, values in images.items()}
    plain, fixed = (psnr(shown[v], shown["reference"]) for v in ("quantized", "corrected"))
    exact = runs["reference"].samples
    drifts = {v: runs[v].samples.astype(np.float64) - exact for v in ("quantized", "corrected")}
    progress.stage(f"{bundle.name}: sampler parity and time per step")
    ratio, fp32_bytes = step_time_ratio(bundle.artifact(backend), model) if benchmark else (None, None)
    description = part["description"]
    return Evaluation(
        name=bundle.name,
        precision=manifest["precision"],
        labels=tuple("" if labels is None else model.classes[label] for label in labels or [0] * count),
        images=images,
        strips={name: run.strips for name, run in runs.items()},
        strip_steps=strip_steps(plan),
        timesteps=plan.timestep,
        snr_db={v: np.array([snr(exact[:, i], runs[v].samples[:, i]) for i in range(plan.steps)]) for v in drifts},
        mean_drift={v: d.mean((0, 3, 4)) for v, d in drifts.items()},
        std_ratio={v: runs[v].samples.std((0, 3, 4)) / exact.std((0, 3, 4)) for v in drifts},
        tables={n: getattr(correction, n) for n in ("output_gain", "output_bias", "input_gain", "input_bias")},
        kept_steps=np.array(manifest["calibration"]["kept_steps"]),
        conversion_parity=part["conversion_parity"],
        quantization_error={"image_psnr_db": bootstrap(plain)},
        correction_gain={
            "image_psnr_db": bootstrap(fixed),
            "image_psnr_gain_db": bootstrap(fixed - plain),
            "seeds_improved": float((fixed > plain).mean()),
        },
        sampler_parity=sampler_parity(manifest, model, plan, reference, batch),
        artifact={
            "bytes": description["total_bytes"],
            "ideal_bytes": part["ideal_bytes"],
            "weight_bits_asked": part["weight_bits_asked"],
            "weight_bits_achieved": part["weight_bits_achieved"],
            "parameters": manifest["model"]["parameters"],
            "planned_memory_bytes": description["planned_memory_bytes"],
            "delegates": description["delegates"],
            "undelegated": description["undelegated"],
            "float_layers": part["float_layers"],
            "size_parts": description["size_parts"],
            "correction_bytes": manifest["files"][part["correction"]]["bytes"],
            "step_time_ratio": ratio,
            "fp32_bytes": fp32_bytes,
        },
        provenance=_provenance(bundle, backend, count, seed),
    )


def figures_of(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation without its arrays, as JSON values."""
    error, gain = evaluation.quantization_error, evaluation.correction_gain
    return {
        "conversion parity": dict(evaluation.conversion_parity),
        "quantization error": {"image PSNR (dB)": asdict(error["image_psnr_db"])},
        "correction gain": {
            "image PSNR with correction (dB)": asdict(gain["image_psnr_db"]),
            "paired gain (dB)": asdict(gain["image_psnr_gain_db"]),
            "share of seeds improved": gain["seeds_improved"],
        },
        "sampler parity (max abs)": evaluation.sampler_parity,
        "artifact": dict(evaluation.artifact),
        "seeds": len(evaluation.labels),
    }


def strip_steps(plan: SamplingPlan) -> tuple[int, ...]:
    """Step indices shown in film strips: evenly spread, first and last included."""
    return tuple(sorted(set(np.linspace(0, plan.steps - 1, STRIP_STEPS).round().astype(int).tolist())))


def _record(
    plan: SamplingPlan,
    denoiser: Denoiser,
    batch: Batch,
    correction: Correction | None,
    chunk: int,
    progress: Progress,
) -> Trajectory:
    """Runs the batch in chunks; only the first STRIP_SAMPLES strips are kept."""
    parts = []
    for start in range(0, len(batch.noise), chunk):
        rows = slice(start, start + chunk)
        piece = batch.rows(rows)
        recorder = _Recorder(strip_steps(plan))
        parts.append(recorder.finish(run(plan, denoiser, piece, correction, recorder)))
        progress.advance(min(start + chunk, len(batch.noise)), len(batch.noise))
    return Trajectory(
        np.concatenate([p.samples for p in parts]), np.concatenate([p.strips for p in parts])[:STRIP_SAMPLES]
    )


def sampler_parity(
    manifest: Mapping[str, Any], model: DiffusionModel, plan: SamplingPlan, reference: Denoiser, batch: Batch
) -> float:
    """Largest absolute difference of a step between the device loop and diffusers' own scheduler, float32.

    Along whole trajectories of the reference network under the diffusers scheduler; at each step both
    get the same sample, model output and fresh noise, and keep their own histories.
    """
    few = batch.rows(slice(0, PARITY_SAMPLES))
    scheduler, eta = make_scheduler(manifest["sampler"], model.scheduler_config)
    scheduler.set_timesteps(plan.steps)
    x = torch.from_numpy(few.noise) * scheduler.init_noise_sigma
    own_noise = "variance_noise" not in inspect.signature(scheduler.step).parameters  # draws from a generator
    history: list[np.ndarray] = []
    worst = 0.0
    for i, timestep in enumerate(scheduler.timesteps):
        output = reference(scheduler.scale_model_input(x, timestep).numpy(), float(timestep), **few.conditioning)
        options: dict[str, Any] = {"eta": eta} if eta else {}
        fresh = None
        if plan.sigma[i]:
            twin = torch.Generator().manual_seed(i)
            fresh = torch.randn(x.shape, generator=twin).numpy() if own_noise else few.step_noise(i)
            if own_noise:
                options["generator"] = torch.Generator().manual_seed(i)
            else:
                options["variance_noise"] = torch.from_numpy(fresh)
        ours, converted = advance(plan, i, x.numpy(), output, history, lambda _, fresh=fresh: fresh)
        history = [converted, *history][: plan.history]
        x = scheduler.step(torch.from_numpy(output), timestep, x, **options).prev_sample
        worst = max(worst, float(np.abs(ours - x.numpy()).max()))
    return worst


def _provenance(bundle: Bundle, backend: str, count: int, seed: int) -> dict[str, str]:
    manifest = bundle.manifest
    calibration = manifest["calibration"]
    part = bundle.part(backend)
    return {
        "model": f"{manifest['model']['name']} ({manifest['model']['parameters']:,} parameters)",
        "model sha256": manifest["model"]["digest"],
        "artifact sha256": manifest["files"][part["unet"]]["sha256"],
        "correction sha256": manifest["files"][part["correction"]]["sha256"],
        "sampler": f"{manifest['sampler']}, {manifest['steps']} steps, guidance {manifest['guidance']:g}",
        "calibration": f"{calibration['method']}, {calibration['samples']} trajectories, seed {calibration['seed']}, "
        f"noise stream {calibration['stream']}",
        "evaluation": f"{count} seeds, seed {seed}, noise stream {STREAM}",
        "versions": ", ".join(f"{k} {v}" for k, v in sorted(manifest["versions"].items())),
    }
