"""Lowering with and without its shortcuts: the ratio of processor times in one run, and whether the bytes are equal.

python benchmarks/lowering.py emoji32 --precision w4a8
"""

from __future__ import annotations

import argparse
import time

from mobile_export.backends.executorch.lowering import lower
from mobile_export.backends.executorch.network import network_for
from mobile_export.export import quantize
from mobile_export.export_settings import ExportSettings
from mobile_export.models.diffusion_model import load_model
from mobile_export.part import Job
from mobile_export.quantize.recipe import Recipe
from mobile_export.quiet import quiet_third_parties


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--precision", default="w4a8")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    settings = ExportSettings(Recipe.of(arguments.precision), steps=4, range_samples=2, targets=("executorch",))
    quantized, _ = quantize(Job.of(model, settings))
    network = network_for(model.unet, quantized.table.layers).eval()
    seconds, data = {}, {}
    for shortcuts in (True, False):
        started = time.process_time()
        data[shortcuts] = lower(network, model.example_inputs(), shortcuts).data
        seconds[shortcuts] = time.process_time() - started
    print(f"processor time with shortcuts / without: {seconds[True] / seconds[False]:.2f}")
    print(f"({seconds[True]:.0f} s and {seconds[False]:.0f} s here); bytes equal: {data[True] == data[False]}")


if __name__ == "__main__":
    quiet_third_parties()
    main()
