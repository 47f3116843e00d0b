"""Compares a bundle's UNet on emulated ARM processors with this one: python -m android_demo.arm.parity BUNDLE...

Without a bundle, each kind of operation is compared on its own. Prints Markdown tables.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from android_demo.arm.emulator import TIERS, EmulatedArtifact, EmulatedProgram
from android_demo.arm.operations import all_operations
from correction import Denoiser
from mobile_export.backends.artifact import ArtifactDenoiser
from mobile_export.backends.executorch.lowering import lower
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.batch import Batch, make_batch, run
from mobile_export.bundle import Bundle
from mobile_export.golden import SEED, STREAM, Golden
from mobile_export.metrics import psnr
from mobile_export.simulate import bundle_unet
from mobile_export.subjects import Subjects

TARGET = "executorch"
PROBES = 10  # steps of the golden record at which a network is asked for its output


def main(arguments: Sequence[str]) -> int:
    for line in bundle_table([Bundle.open(Path(path)) for path in arguments]) if arguments else operation_table():
        print(line, flush=True)
    return 0


def operation_table() -> Iterator[str]:
    """A row for each operation: the largest difference from this processor, as a share of the largest value."""
    yield "| operation | " + " | ".join(tier.name for tier in TIERS) + " |"
    yield "|---" * (1 + len(TIERS)) + "|"
    for name, errors in operation_errors().items():
        yield f"| {name} | " + " | ".join("equal" if error == 0 else f"{error:.1e}" for error in errors) + " |"


def operation_errors() -> dict[str, list[float]]:
    """Operation -> for each tier the largest difference, as a share of the largest value; 0 where all is equal."""
    network = all_operations().eval()
    data = lower(network, network.inputs).data
    ours = [output.numpy().ravel() for output in LoadedProgram(data, "the operations")(*network.inputs)]
    errors: dict[str, list[float]] = {operation.name: [] for operation in network.operations}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operations.pte"
        path.write_bytes(data)
        for tier in TIERS:
            with EmulatedProgram(path, tier) as program:
                theirs = program(*(value.numpy() for value in network.inputs))
            for operation, a, b in zip(network.operations, ours, theirs, strict=True):
                errors[operation.name].append(float(np.abs(a - b).max() / np.abs(a).max()))
    return errors


def bundle_table(bundles: Sequence[Bundle]) -> Iterator[str]:
    """A row for each bundle and tier: model outputs at the recorded samples, and the last sample of a whole run."""
    yield "| bundle | processor | outputs equal | output, max abs | output, PSNR | sample, max abs | sample, PSNR |"
    yield "|---|---|---|---|---|---|---|"
    for bundle in bundles:
        for tier in TIERS:
            path, signature = bundle.artifact(TARGET), bundle.signature(TARGET)
            with EmulatedProgram(path, tier) as program:
                cells = _compared(bundle, ArtifactDenoiser(EmulatedArtifact(program, signature)))
            yield f"| {bundle.name} | {tier.name} ({tier.cpu}) | " + " | ".join(cells) + " |"


def _compared(bundle: Bundle, artifact: Denoiser) -> list[str]:
    golden = Golden.read(bundle.path / bundle.part(TARGET)["golden"])
    file = bundle.correction_file(TARGET)
    batch = make_batch(SEED, STREAM, [0], golden.noise.shape[1:], golden.given)
    subjects = Subjects(("",), golden.given, golden.null, float(bundle.manifest["guidance"]) if golden.null else 1.0)
    theirs, ours = subjects.guided(artifact), subjects.guided(bundle_unet(bundle, TARGET))
    inputs = _inputs(bundle, golden, batch)
    equal, errors, ratios = 0, [], []
    for i in np.linspace(0, file.plan.steps - 1, min(PROBES, file.plan.steps)).round().astype(int):
        here, there = (d(inputs[i], float(file.plan.timestep[i]), **golden.given) for d in (ours, theirs))
        equal += np.array_equal(here, there)
        errors.append(float(np.abs(here - there).max()))
        ratios.append(float(psnr(here, there)[0]))
    here, there = (run(file.plan, d, batch, file.correction) for d in (ours, theirs))
    return [
        f"{equal} of {len(errors)}",
        f"{max(errors):.2g}",
        f"{min(ratios):.1f} to {max(ratios):.1f} dB",
        f"{np.abs(here - there).max():.2g}",
        f"{psnr(here, there)[0]:.1f} dB",
    ]


def _inputs(bundle: Bundle, golden: Golden, batch: Batch) -> list[np.ndarray]:
    """What the network is given at each step of the golden record."""
    file = bundle.correction_file(TARGET)
    inputs: list[np.ndarray] = []

    def recorded(sample: np.ndarray, _timestep: float, /, **_conditioning: np.ndarray) -> np.ndarray:
        inputs.append(sample)
        return golden.outputs[len(inputs) - 1]

    run(file.plan, recorded, batch, file.correction)
    return inputs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
