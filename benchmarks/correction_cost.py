"""What a correction costs: its bytes, and its share of a step's time, in the device loop on the `.pte`: `make results`.

    python benchmarks/correction_cost.py build/results/emoji32-w4a8 build/results/digits28-w4a8

A step with every gain and bias at work and the same step without, alternating in one run. The table goes into
docs/results.md, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from correction import Correction
from correction.tables import NAMES
from mobile_export.batch import make_batch
from mobile_export.bundle import Bundle
from mobile_export.evaluate.bundle_evaluation import bundle_subjects
from mobile_export.evaluate.comparison_table import line, require_place, write_into
from mobile_export.evaluate.cost import step_cost
from mobile_export.models.diffusion_model import load_model
from mobile_export.quiet import quiet_third_parties
from mobile_export.simulate import bundle_unet

DOCUMENT, PLACE = Path("docs/results.md"), "correction-cost"
STEPS, LATENTS = 50, 4  # channels of a latent diffusion model's sample
TABLES = {"`tac`": ("output_gain", "input_bias"), "`affine`": NAMES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    arguments = parser.parse_args()
    require_place(DOCUMENT, PLACE)
    identity = Correction.identity(STEPS, LATENTS)
    sizes = ", ".join(f"{m} {sum(getattr(identity, n).nbytes for n in names):,} bytes" for m, names in TABLES.items())
    head = ("artifact", "sample", "all four over a step's time")
    lines = [f"{STEPS} steps x {LATENTS} channels: {sizes}.", "", line(head), line("---" for _ in head)]
    lines += [line(row(Bundle.open(path))) for path in arguments.bundles]
    write_into(DOCUMENT, PLACE, "\n".join(lines))
    print("\n".join(lines))


def row(bundle: Bundle) -> list[str]:
    model, plan = load_model(bundle.manifest["model"]["source"]), bundle.correction_file("executorch").plan
    subjects = bundle_subjects(bundle, model)
    batch = make_batch(0, "evaluation", range(1), model.sample_shape, subjects.rows(subjects.turn(range(1))))
    cost = step_cost(plan, subjects.guided(bundle_unet(bundle, "executorch")), batch)
    return [bundle.name, " x ".join(map(str, model.sample_shape)), f"{100 * cost.share:.2f} %"]


if __name__ == "__main__":
    quiet_third_parties()
    main()
