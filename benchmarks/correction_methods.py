"""Every correction method on the same artifact and the same held-out noise, side by side.

    python benchmarks/correction_methods.py build/emoji32-w4a8 -n 64 [--target coreml]

Each method is calibrated on the bundle's artifact (calibration stream) and judged on the evaluation
stream: mean image PSNR against the reference, and the paired gain over no correction with its 95 %
bootstrap interval. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from correction.calibrate import calibrate
from correction.methods import METHODS
from mobile_export.batch import make_batch, run
from mobile_export.bundle import Bundle
from mobile_export.metrics import bootstrap, psnr
from mobile_export.models.diffusion_model import TorchDenoiser, load_model
from mobile_export.prompts import CALIBRATION_PROMPTS
from mobile_export.quiet import quiet_third_parties
from mobile_export.simulate import bundle_unet
from mobile_export.subjects import model_subjects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-n", type=int, default=64, help="held-out seeds")
    parser.add_argument("--target", default="executorch")
    parser.add_argument("--calibration-samples", type=int, default=48)
    parser.add_argument("--methods", nargs="+", default=[m for m in METHODS if m != "none"])
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    model = load_model(bundle.manifest["model"]["source"])
    plan = bundle.correction_file(arguments.target).plan
    subjects = model_subjects(model, CALIBRATION_PROMPTS, float(bundle.manifest["guidance"]))
    artifact = subjects.guided(bundle_unet(bundle, arguments.target))
    reference = subjects.guided(TorchDenoiser(model.unet))

    def batch(stream: str, count: int):
        rows = subjects.rows(subjects.turn(range(count)))
        return make_batch(0, stream, range(count), model.sample_shape, rows)

    held_out, fitting = batch("evaluation", arguments.n), batch("calibration", arguments.calibration_samples)
    exact = np.clip(run(plan, reference, held_out), -1, 1)

    def quality(correction) -> np.ndarray:
        return psnr(np.clip(run(plan, artifact, held_out, correction), -1, 1), exact)

    plain = quality(None)
    count = arguments.calibration_samples
    print(f"{bundle.name}, {arguments.target}: {arguments.n} held-out seeds, {count} calibration trajectories\n")
    print("| method | image PSNR (dB) | paired gain (dB), 95 % interval | seeds improved | steps kept |")
    print("|---|---|---|---|---|")
    print(f"| none | {plain.mean():.2f} | | | |", flush=True)
    for name in arguments.methods:
        result = calibrate(
            plan,
            reference,
            artifact,
            fitting.noise,
            name,
            fitting.conditioning,
            fitting.step_noise if plan.needs_noise else None,
        )
        values = quality(result.correction)
        gain = bootstrap(values - plain)
        kept = f"{int(result.kept.any(1).sum())} of {plan.steps}" + (" (all dropped)" if result.dropped else "")
        improved = f"{100 * (values > plain).mean():.0f} %"
        row = f"{values.mean():.2f} | {gain.mean:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})"
        print(f"| {name} | {row} | {improved} | {kept} |", flush=True)


if __name__ == "__main__":
    quiet_third_parties()
    main()
