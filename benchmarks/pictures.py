"""The pictures of the README and the model card, from bundles that exist: `make pictures`.

    python benchmarks/pictures.py build/emoji32-w4a8 -o docs/pictures

Writes NAME-TARGET.png for each target, the first seeds of the evaluation stream in columns, the rows reference,
quantized, quantized with correction; and, with --samples, 64 samples of the reference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mobile_export.batch import Batch, make_batch, run
from mobile_export.bundle import Bundle
from mobile_export.models.diffusion_model import TorchDenoiser, load_model
from mobile_export.pictures import save_grid
from mobile_export.quiet import quiet_third_parties
from mobile_export.simulate import bundle_unet
from mobile_export.subjects import Subjects

SEEDS = 12
SAMPLES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--samples", type=Path, help="also write a grid of 64 reference samples here")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    model = load_model(bundle.manifest["model"]["source"])
    plan = bundle.correction_file(bundle.targets[0]).plan
    subjects = Subjects.of_classes(model.classes, model.null_label, float(bundle.manifest["guidance"]))
    reference = subjects.guided(TorchDenoiser(model.unet))

    def batch(stream: str, count: int) -> Batch:
        rows = subjects.rows(subjects.turn(range(count)))
        return make_batch(0, stream, range(count), model.sample_shape, rows)

    few = batch("evaluation", SEEDS)
    exact = run(plan, reference, few)
    for target in bundle.targets:
        artifact, correction = subjects.guided(bundle_unet(bundle, target)), bundle.correction_file(target).correction
        rows = [exact, run(plan, artifact, few), run(plan, artifact, few, correction)]
        save_grid(arguments.output / f"{bundle.name}-{target}.png", np.concatenate(rows), columns=SEEDS)
    if arguments.samples is None:
        return
    save_grid(arguments.samples, run(plan, reference, batch("simulation", SAMPLES)))


if __name__ == "__main__":
    quiet_third_parties()
    main()
