"""Verification of a bundle: digests, bindings, and its golden vectors replayed on each artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from correction import CheckFailed, Correction, Denoiser, SamplingPlan
from mobile_export.backends import get_backend
from mobile_export.backends.artifact import ArtifactDenoiser
from mobile_export.batch import Batch, make_batch, run
from mobile_export.bundle import Bundle
from mobile_export.metrics import psnr
from mobile_export.simulate import bundle_unet
from mobile_export.subjects import Subjects

GOLDEN_SEED = 0
GOLDEN_STREAM = "simulation"
NULL = "null."  # before the names of the inputs of guidance's other branch
RECORDED = ("noise", "sample_corrected", "sample_uncorrected")
NATIVE_STEPS = 5
MIN_GOLDEN_PSNR = 35.0  # another machine may round differently; the machine that exported gives equal bits


@dataclass(frozen=True)
class Verification:
    """What was found of one part.

    files: how many the bundle has, all checked; golden_equal: the replayed image is equal to the bit;
    golden_psnr_db: against the recorded image; delegates and undelegated: as in `Description`;
    native_error: relative L2 difference of the network's outputs between the platform's own runtime and
    the one used here, the worst of NATIVE_STEPS steps of the golden run; None where there is no other.
    """

    files: int
    artifact_sha256: str
    golden_equal: bool
    golden_psnr_db: float
    delegates: int | None
    undelegated: Mapping[str, int]
    native_error: float | None = None


def golden_record(
    plan: SamplingPlan, denoiser: Denoiser, correction: Correction, shape: tuple[int, ...], subjects: Subjects
) -> dict[str, np.ndarray]:
    """One sample of a part with and without correction, with the noise and conditioning that it came from.

    shape: (C, H, W); its subject is the first.
    """
    batch = make_batch(GOLDEN_SEED, GOLDEN_STREAM, [0], shape, subjects.rows([0]))
    record = {
        "noise": batch.noise,
        "sample_corrected": run(plan, denoiser, batch, correction),
        "sample_uncorrected": run(plan, denoiser, batch),
        **batch.conditioning,
        **{f"{NULL}{name}": array for name, array in subjects.null.items()},
    }
    return {name: np.ascontiguousarray(array) for name, array in record.items()}


def verify_bundle(bundle: Bundle, targets: Sequence[str] = ()) -> dict[str, Verification]:
    """`verify_part` of each of `targets`, by default of all parts."""
    return {target: verify_part(bundle, target) for target in targets or bundle.targets}


def verify_part(bundle: Bundle, target: str) -> Verification:
    """Replay the golden vectors of one part of an opened (thus digest-checked) bundle on its artifact.

    Raises CheckFailed when the image differs by more than another machine's rounding explains.
    """
    file = bundle.correction_file(target)
    for name in bundle.components(target):
        get_backend(target).load(bundle.artifact(target, name), bundle.signature(target, name))
    description = get_backend(target).describe(bundle.artifact(target))
    path = bundle.path / bundle.part(target)["golden"]
    golden = _golden(path)
    sample = bundle.manifest["sample"]
    shape = (sample["channels"], sample["height"], sample["width"])
    null = {name.removeprefix(NULL): array for name, array in golden.items() if name.startswith(NULL)}
    given = {n: array for n, array in golden.items() if n not in RECORDED and not n.startswith(NULL)}
    batch = make_batch(GOLDEN_SEED, GOLDEN_STREAM, [0], shape, given)
    if not np.array_equal(batch.noise, golden["noise"]):
        raise CheckFailed("the noise generator gives other numbers than when the bundle was made: versions differ")
    seen: list[np.ndarray] = []
    scale = float(bundle.manifest["guidance"]) if null else 1.0
    denoiser = Subjects(("",), given, null, scale).guided(bundle_unet(bundle, target))
    replayed = run(file.plan, denoiser, batch, file.correction, lambda i, x, m, y: seen.append(x))
    recorded = golden["sample_corrected"]
    value = float(psnr(replayed, recorded)[0])
    if value < MIN_GOLDEN_PSNR:
        raise CheckFailed(
            f"the {target} artifact draws another image than when it was exported: {value:.1f} dB, "
            f"at least {MIN_GOLDEN_PSNR:g} dB expected; export again on this machine"
        )
    return Verification(
        files=len(bundle.manifest["files"]),
        artifact_sha256=file.artifact_sha256,
        golden_equal=bool(np.array_equal(replayed, recorded)),
        golden_psnr_db=value,
        delegates=description.delegates,
        undelegated=description.undelegated,
        native_error=_native_error(bundle, target, file.plan, batch, seen),
    )


def _golden(path: Path) -> dict[str, np.ndarray]:
    try:
        golden = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckFailed(f"{path} cannot be read ({error}); export the bundle again") from error
    if not {"noise", "sample_corrected"} <= golden.keys():
        raise CheckFailed(f"{path} is no golden record of this bundle; export the bundle again")
    return golden


def _native_error(
    bundle: Bundle, target: str, plan: SamplingPlan, batch: Batch, samples: Sequence[np.ndarray]
) -> float | None:
    """samples: (1, C, H, W) as each step began."""
    backend, path, signature = get_backend(target), bundle.artifact(target), bundle.signature(target)
    runtime = backend.native(path, signature)
    if runtime is None:
        return None
    here, native = bundle_unet(bundle, target), ArtifactDenoiser(runtime)
    errors = []
    for i in np.linspace(0, plan.steps - 1, min(NATIVE_STEPS, plan.steps)).round().astype(int):
        given = (plan.input_scale[i] * samples[i]).astype(np.float32)
        ours, theirs = (d(given, float(plan.timestep[i]), **batch.conditioning).astype(float) for d in (here, native))
        errors.append(np.linalg.norm(theirs - ours) / np.maximum(np.linalg.norm(ours), 1e-30))
    return float(np.max(errors))
