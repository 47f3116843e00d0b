"""Every precision that a Core ML package can have, checked and measured on one model.

    python benchmarks/coreml_precisions.py emoji32 [--ios ios17 | --compute ane] [--only w4a8 "w4a16 block32"]

Per row: bytes of the package; bits per weight it stores (weight file over the model's weights); codes that are the
table's; the largest absolute difference from the quantized PyTorch model in float32 arithmetic, the relative error
in float16 arithmetic as declared (worst of all timesteps of the plan; with 8-bit activations both in lock-step);
codes flipped in float32 arithmetic; the simulator's time per sample over eager PyTorch's of the quantized model,
at batch 1 and 16, alternating. The table goes into docs/coreml.md; with `--only` it is printed alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from correction.schedulers import make_plan
from mobile_export.backends.artifact import ArtifactDenoiser
from mobile_export.backends.backend import BackendOptions, Probe
from mobile_export.backends.coreml.backend import CoreMLBackend, float_outputs
from mobile_export.backends.coreml.stored_codes import compare_codes
from mobile_export.batch import make_batch, run
from mobile_export.coreml_simulator.package import read_package
from mobile_export.evaluate.comparison_table import line, require_place, write_into
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser, load_model
from mobile_export.progress import Progress
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable, matrix_layers, quantize_layers
from mobile_export.quiet import quiet_third_parties
from mobile_export.subjects import Subjects

ROWS = (
    *("w8a8", "w4a8", "w4a8 palette16", "w8a16", "w6a16", "w4a16", "w4a16 block16", "w4a16 palette16", "w4a16 palette"),
    *("w3a16", "w2a16", "w1a16"),
)
IOS17_ROWS = ("w8a8", "w4a8", "w8a16", "w6a16", "w4a16", "w2a16", "w1a16")
ANE_ROWS = ("w8a8", "w4a8", "w4a8 palette16", "w4a16 palette16")
TABLES = {("ios18", "all"): ROWS, ("ios17", "all"): IOS17_ROWS, ("ios18", "ane"): ANE_ROWS}
DOCUMENT = Path("docs/coreml.md")
HEAD = (
    *("precision", "bytes", "bits per weight", "codes equal", "max abs, float32", "relative, declared", "flips"),
    *("worst step", "time, batch 1", "time, batch 16"),
)
STEPS, TRAJECTORIES, ROUNDS, BATCH = 50, 8, 5, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--only", nargs="+", metavar="ROW")
    parser.add_argument("--ios", default="ios18", choices=["ios17", "ios18"])
    parser.add_argument("--compute", default="all", choices=["all", "ane"])
    args = parser.parse_args()
    form = (args.ios, args.compute)
    if args.only is None and form not in TABLES:
        parser.error(f"no table of --ios {args.ios} --compute {args.compute}; name rows with --only")
    rows, place = args.only or TABLES[form], f"packages-{args.ios}-{args.compute}"
    if args.only is None:
        require_place(DOCUMENT, place)
    model = load_model(args.model)
    plan = make_plan("ddim", model.scheduler_config, STEPS)
    subjects = Subjects.of_classes(model.classes, model.null_label)
    shown = subjects.rows(subjects.turn(range(TRAJECTORIES)))
    batch = make_batch(0, "calibration", range(TRAJECTORIES), model.sample_shape, shown)
    probes: list[Probe] = []

    def record(i: int, x: np.ndarray, _m: np.ndarray, _y: np.ndarray) -> None:
        k = i % TRAJECTORIES
        sample = (plan.input_scale[i] * x[k : k + 1]).astype(np.float32)
        given = {name: array[k : k + 1] for name, array in batch.conditioning.items()}
        time = float(plan.timestep[i])
        probes.append(Probe({"sample": sample, "timestep": np.full(1, time, np.float32), **given}, time))

    reference = TorchDenoiser(model.unet)
    observations = observe_layers(model.unet, lambda: run(plan, reference, batch, on_step=record))
    component = model.component("unet")
    backend = CoreMLBackend(BackendOptions(ios=args.ios, compute=args.compute))
    weights = sum(layer.weight.numel() for _, layer in matrix_layers(model.unet))
    lines = [line(HEAD), line("---" for _ in HEAD)]
    print(*lines, sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            table = float_outputs(quantize_layers(model.unet, observations, Recipe.of(*row.split())))
            path = Path(folder) / f"{row.replace(' ', '-')}.mlpackage"
            backend.export(component, table, path, Progress())
            parity = backend.check_parity(component, table, path, None, probes)
            package = read_package(path)
            codes = compare_codes(package.program(), table.layers, args.ios)
            stored = sum(size for name, size in package.sizes.items() if name.endswith(".bin"))
            one, many = (time_ratio(backend, path, model, table, count) for count in (1, BATCH))
            cells = [
                f"{table.precision.name} {table.recipe.format.name}",
                f"{sum(package.sizes.values()):,}",
                f"{8 * stored / weights:.2f}",
                f"{codes.equal:,}/{codes.total:,}",
                f"{parity.output_max_abs:.1e}",
                f"{parity.declared_error:.1e}",
                f"{parity.flip_rate:.1e}",
                f"{parity.worst_code_step}",
                f"{one:.2f}",
                f"{many:.2f}",
            ]
            lines.append(line(cells))
            print(lines[-1], flush=True)
    if args.only is None:
        write_into(DOCUMENT, place, "\n".join(lines))


def time_ratio(
    backend: CoreMLBackend, path: Path, model: DiffusionModel, table: QuantizationTable, count: int
) -> float:
    """Best time of the simulator over the best of eager PyTorch's quantized model, alternating, `count` samples."""
    simulated = ArtifactDenoiser(backend.load(path, backend.signature(model.component("unet"))))
    eager = TorchDenoiser(quantized_model(model.unet, table))
    rows = Subjects.of_classes(model.classes, None).rows([0] * count)
    batch = make_batch(1, "simulation", range(count), model.sample_shape, rows)

    def timed(denoiser: ArtifactDenoiser | TorchDenoiser) -> float:
        started = time.perf_counter()
        denoiser(batch.noise, 500.0, **batch.conditioning)
        return time.perf_counter() - started

    rounds = np.array([(timed(simulated), timed(eager)) for _ in range(ROUNDS)])
    return float(np.divide(*rounds.min(axis=0)))


if __name__ == "__main__":
    quiet_third_parties()
    torch.set_num_threads(1)
    main()
