"""Time per network call of several artifacts beside the float32 one, alternating in one run, as ratios.

    python benchmarks/step_time.py build/emoji32-w8a8 build/emoji32-w4a8

All artifacts must come from one model. The float32 artifact is the diffusers network lowered as it is
(its convolutions stay convolutions), the fastest float32 form that was found. Prints a Markdown table:
the smallest and the median wall time over the rounds, divided by the float32 artifact's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.benchmark import float_artifact
from mobile_export.bundle import Bundle
from mobile_export.models.diffusion_model import load_model
from mobile_export.quiet import quiet_third_parties


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    bundles = [Bundle.open(path) for path in arguments.bundles]
    model = load_model(bundles[0].manifest["model"]["source"])
    files = {"float32": float_artifact(model.component("unet"))} | {
        b.manifest["precision"]: b.artifact("executorch") for b in bundles
    }
    programs = {name: LoadedProgram(path.read_bytes(), name) for name, path in files.items()}
    inputs = model.example_inputs()
    times: dict[str, list[float]] = {name: [] for name in programs}
    with torch.inference_mode():
        for _ in range(arguments.rounds):
            for name, program in programs.items():
                started = time.perf_counter()
                program(*inputs)
                times[name].append(time.perf_counter() - started)
    print(f"{model.name}, {arguments.rounds} alternating rounds\n")
    print("| artifact | bytes | smallest time / float32 | median time / float32 |\n|---|---|---|---|")
    base = times["float32"]
    for name, values in times.items():
        ratios = f"{min(values) / min(base):.3f} | {np.median(values) / np.median(base):.3f}"
        print(f"| {name} | {files[name].stat().st_size:,} | {ratios} |")


if __name__ == "__main__":
    quiet_third_parties()
    main()
