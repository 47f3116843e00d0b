"""Verification of a bundle: digests, bindings, and its golden vectors replayed on each artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from correction import CheckFailed, SamplingPlan
from mobile_export.backends import get_backend
from mobile_export.backends.artifact import ArtifactDenoiser
from mobile_export.bundle import Bundle
from mobile_export.golden import Golden
from mobile_export.simulate import bundle_unet
from mobile_export.subjects import Subjects

NATIVE_STEPS = 5
# dB, at each step and at half of them or more: another machine may round differently. The machine that exported gives
# equal bits; at one step a flipped rounding may cost percents, a wrong network is wrong at most of them.
MIN_OUTPUT_PSNR = 20.0
USUAL_OUTPUT_PSNR = 35.0


@dataclass(frozen=True)
class Verification:
    """What was found of one part.

    files: how many the bundle has, all checked; outputs_equal: every replayed model output is equal to the bit;
    output_psnr_db: (N,) of the model output at each step; sample_error: of the loop's last sample on recorded outputs,
    0 where it is bit-exact; delegates and undelegated: as in `Description`; native_error: relative L2 difference
    of the network's outputs between the platform's own runtime and the one used here, the worst of NATIVE_STEPS
    steps of the golden run; None where there is no other.
    """

    files: int
    artifact_sha256: str
    outputs_equal: bool
    output_psnr_db: tuple[float, ...]
    sample_error: float
    delegates: int | None
    undelegated: Mapping[str, int]
    native_error: float | None = None


def verify_bundle(bundle: Bundle, targets: Sequence[str] = ()) -> dict[str, Verification]:
    """`verify_part` of each of `targets`, by default of all parts."""
    return {target: verify_part(bundle, target) for target in targets or bundle.targets}


def verify_part(bundle: Bundle, target: str) -> Verification:
    """Replay the golden record of one part of an opened (thus digest-checked) bundle on its artifact.

    Raises CheckFailed when the loop gives another sample from the recorded outputs (a changed correction, say), or an
    output differs by more than another machine's rounding explains.
    """
    file = bundle.correction_file(target)
    for name in bundle.components(target):
        get_backend(target).load(bundle.artifact(target, name), bundle.signature(target, name))
    description = get_backend(target).describe(bundle.artifact(target))
    golden = Golden.read(bundle.path / bundle.part(target)["golden"])
    scale = float(bundle.manifest["guidance"]) if golden.null else 1.0
    denoiser = Subjects(("",), golden.given, golden.null, scale).guided(bundle_unet(bundle, target))
    found = golden.replay(file.plan, file.correction, denoiser)
    if found.sample_error != 0:
        raise CheckFailed(
            f"the {target} correction and plan turn the recorded model outputs into another sample than at the export: "
            f"a value differs by {found.sample_error:.3g}, 0 expected; export again"
        )
    worst = int(found.output_psnr_db.argmin())
    usual = float(np.mean(found.output_psnr_db >= USUAL_OUTPUT_PSNR))
    if not (found.output_psnr_db[worst] >= MIN_OUTPUT_PSNR and usual >= 0.5):
        raise CheckFailed(
            f"the {target} artifact computes something else than when it was exported: "
            f"{found.output_psnr_db[worst]:.1f} dB at step {worst}, at least {MIN_OUTPUT_PSNR:g} dB expected; "
            f"{usual:.0%} of the steps have {USUAL_OUTPUT_PSNR:g} dB, at least half expected; "
            "export again on this machine"
        )
    return Verification(
        files=len(bundle.manifest["files"]),
        artifact_sha256=file.artifact_sha256,
        outputs_equal=found.outputs_equal,
        output_psnr_db=tuple(found.output_psnr_db.tolist()),
        sample_error=found.sample_error,
        delegates=description.delegates,
        undelegated=description.undelegated,
        native_error=_native_error(bundle, target, file.plan, golden, found.inputs),
    )


def _native_error(
    bundle: Bundle, target: str, plan: SamplingPlan, golden: Golden, inputs: Sequence[np.ndarray]
) -> float | None:
    """inputs: (1, C, H, W), what the network is given at each step."""
    backend, path, signature = get_backend(target), bundle.artifact(target), bundle.signature(target)
    runtime = backend.native(path, signature)
    if runtime is None:
        return None
    here, native = bundle_unet(bundle, target), ArtifactDenoiser(runtime)
    errors = []
    for i in np.linspace(0, plan.steps - 1, min(NATIVE_STEPS, plan.steps)).round().astype(int):
        ours, theirs = (d(inputs[i], float(plan.timestep[i]), **golden.given).astype(float) for d in (here, native))
        errors.append(np.linalg.norm(theirs - ours) / np.maximum(np.linalg.norm(ours), 1e-30))
    return float(np.max(errors))
