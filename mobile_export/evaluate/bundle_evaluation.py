"""Evaluation of a bundle's parts against their reference, on noise that calibration never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from correction import CheckFailed, UsageError
from mobile_export.backends import get_backend
from mobile_export.batch import make_batch
from mobile_export.bundle import Bundle
from mobile_export.evaluate.evaluation import Evaluation
from mobile_export.evaluate.trajectory import References, record, strip_steps
from mobile_export.metrics import bootstrap, psnr, snr
from mobile_export.models.diffusion_model import DiffusionModel, load_model
from mobile_export.models.torch_denoiser import TorchComponent
from mobile_export.progress import Progress
from mobile_export.prompts import CALIBRATION_PROMPTS
from mobile_export.simulate import bundle_unet
from mobile_export.subjects import Subjects, model_subjects
from mobile_export.text_files import bundle_prompts

STREAM = "evaluation"
EMULATED = "not measured: an emulator's time is never a phone's"


def evaluate_all(
    bundles: Sequence[Bundle],
    count: int = 64,
    seed: int = 0,
    targets: Sequence[str] = (),
    model: DiffusionModel | None = None,
    benchmark: bool = True,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """`evaluate` of the parts `targets` of each bundle, by default of all, on the same noise.

    Each reference is loaded and sampled once. Raises UsageError when a bundle lacks one of `targets`.
    """
    for bundle in bundles:
        for target in targets:
            bundle.part(target)  # before the work
    references = References()
    models: dict[str, DiffusionModel] = {}
    found = []
    for bundle in bundles:
        source = bundle.manifest["model"]["source"]
        if model is None and source not in models:
            models[source] = load_model(source)
        for target in targets or bundle.targets:
            each = model or models[source]
            found.append(evaluate(bundle, count, seed, target, each, benchmark, progress, references))
    return found


def evaluate(
    bundle: Bundle,
    count: int = 64,
    seed: int = 0,
    target: str | None = None,
    model: DiffusionModel | None = None,
    benchmark: bool = True,
    progress: Progress | None = None,
    references: References | None = None,
) -> Evaluation:
    """Everything the report shows about one part of a bundle, over `count` seeds of the evaluation stream.

    target: whose part, by default the first. model: the reference; by default loaded from where the
    manifest says the bundle came from. Its digest must be the manifest's. benchmark: also time the
    artifact beside the float32 one, where it runs in its own runtime. references: those that were
    sampled already. Raises UsageError for a count below 2, CheckFailed for another reference.
    """
    progress = progress or Progress()
    if not 2 <= count <= 4096:
        raise UsageError(f"evaluation needs 2 to 4096 seeds, got {count}")
    target = target or bundle.targets[0]
    manifest, part = bundle.manifest, bundle.part(target)
    model = model or load_model(manifest["model"]["source"])
    if model.digest != manifest["model"]["digest"]:
        raise CheckFailed(f"{model.source} is not the model that {bundle.name} was made from (its digest differs)")
    file = bundle.correction_file(target)
    plan, correction = file.plan, file.correction
    backend = get_backend(target)
    subjects = bundle_subjects(bundle, model)
    chosen = subjects.turn(range(count))
    batch = make_batch(seed, STREAM, range(count), model.sample_shape, subjects.rows(chosen))
    reference = (references or References()).get(model, plan, manifest["sampler"], batch, subjects, progress)
    artifact = subjects.guided(bundle_unet(bundle, target))
    runs = {"reference": reference.trajectory}
    for variant, tables in (("quantized", None), ("corrected", correction)):
        progress.stage(f"{bundle.name}, {backend.title}: {count} images, {variant}")
        runs[variant] = record(plan, artifact, batch, tables, backend.batch, progress)

    decode = image_decoder(model)
    images = {name: decode(run.samples[:, -1]) for name, run in runs.items()}
    shown = {name: np.clip(values, -1, 1) for name, values in images.items()}
    plain, fixed = (psnr(shown[v], shown["reference"]) for v in ("quantized", "corrected"))
    exact = runs["reference"].samples
    drifts = {v: runs[v].samples.astype(np.float64) - exact for v in ("quantized", "corrected")}
    timed = None
    if benchmark:
        progress.stage(f"{bundle.name}, {backend.title}: time per step")
        timed = backend.step_time(bundle.artifact(target), model.component("unet"))
    ratio, fp32_bytes = timed or (None, None)
    unet = bundle.component(target)
    description = unet["description"]
    return Evaluation(
        name=bundle.name,
        target=target,
        target_title=backend.title,
        precision=manifest["precision"],
        labels=tuple(subjects.names[k] for k in chosen),
        images=images,
        strips={name: np.stack([decode(strip) for strip in run.strips]) for name, run in runs.items()},
        strip_steps=strip_steps(plan),
        timesteps=plan.timestep,
        snr_db={v: np.array([snr(exact[:, i], runs[v].samples[:, i]) for i in range(plan.steps)]) for v in drifts},
        mean_drift={v: d.mean((0, 3, 4)) for v, d in drifts.items()},
        std_ratio={v: runs[v].samples.std((0, 3, 4)) / exact.std((0, 3, 4)) for v in drifts},
        tables={n: getattr(correction, n) for n in ("output_gain", "output_bias", "input_gain", "input_bias")},
        kept_steps=np.array(part["kept_steps"]),
        conversion_parity=unet["conversion_parity"],
        quantization_error={"image_psnr_db": bootstrap(plain)},
        correction_gain={
            "image_psnr_db": bootstrap(fixed),
            "image_psnr_gain_db": bootstrap(fixed - plain),
            "seeds_improved": float((fixed > plain).mean()),
        },
        sampler_parity=reference.sampler_parity,
        artifact={
            "bytes": bundle.artifact_bytes(target),
            "ideal_bytes": unet["ideal_bytes"],
            "weight_bits_asked": unet["weight_bits_asked"],
            "weight_bits_achieved": unet["weight_bits_achieved"],
            "parameters": unet["parameters"],
            "planned_memory_bytes": description["planned_memory_bytes"],
            "delegates": description["delegates"],
            "undelegated": description["undelegated"],
            "operations": description["operations"],
            "notes": description["notes"],
            "float_layers": unet["float_layers"],
            "size_parts": description["size_parts"],
            "correction_bytes": manifest["files"][part["correction"]]["bytes"],
            "step_time_ratio": ratio,
            "step_time_note": EMULATED if benchmark and timed is None else "",
            "fp32_bytes": fp32_bytes,
        },
        provenance=_provenance(bundle, target, count, seed),
    )


def bundle_subjects(bundle: Bundle, model: DiffusionModel) -> Subjects:
    """The prompts that the bundle was made for, or those of calibration; on noise that calibration never saw."""
    found = bundle_prompts(bundle)
    if found is not None:
        return found
    guidance, text = float(bundle.manifest["guidance"]), bundle.manifest["text"]
    return model_subjects(model, CALIBRATION_PROMPTS, guidance, "" if text is None else text["negative_prompt"])


def image_decoder(model: DiffusionModel) -> Callable[[np.ndarray], np.ndarray]:
    """Samples (N, C, H, W) to images by the reference's own decoder, so that what differs is the UNet's doing."""
    latents = model.latents
    if latents is None:
        return lambda samples: samples
    decode = TorchComponent(model.component("vae_decoder"))
    return lambda samples: np.concatenate([decode(latents=latents.to_decoder(row[None])) for row in samples])


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


def _provenance(bundle: Bundle, target: str, count: int, seed: int) -> dict[str, str]:
    manifest = bundle.manifest
    calibration = manifest["calibration"]
    part = bundle.part(target)
    return {
        "model": f"{manifest['model']['name']} ({manifest['model']['parameters']:,} parameters)",
        "model sha256": manifest["model"]["digest"],
        "artifact sha256": bundle.artifact_sha256(target),
        "correction sha256": manifest["files"][part["correction"]]["sha256"],
        "sampler": f"{manifest['sampler']}, {manifest['steps']} steps, guidance {manifest['guidance']:g}",
        "calibration": f"{calibration['method']}, {calibration['samples']} trajectories, seed {calibration['seed']}, "
        f"noise stream {calibration['stream']}",
        "evaluation": f"{count} seeds, seed {seed}, noise stream {STREAM}",
        "versions": ", ".join(f"{k} {v}" for k, v in sorted(manifest["versions"].items())),
    }
