"""Guidance as one network call of batch 2 beside two calls of batch 1, alternating in one run, as ratios.

    python benchmarks/guidance_batch.py --size 32

A UNet with text and random weights, lowered for ExecuTorch in float32 and at w8a8. Prints a Markdown table: the
smallest and the median wall time of the one call over the rounds, divided by that of the two; below 1 the batch is
faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from mobile_export.backends.executorch.contents import read_contents
from mobile_export.backends.executorch.lowering import lower
from mobile_export.backends.executorch.network import network_for
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import LayerQuantization, quantize_layers
from mobile_export.quiet import quiet_third_parties

TEXT = (77, 128)  # tokens, width of an embedding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="height and width of the latents")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    quiet_third_parties()
    unet = random_unet(arguments.size)
    two, one = inputs(2, arguments.size), inputs(1, arguments.size)
    observations = observe_layers(unet, lambda: unet(*two, return_dict=False)[0])
    print("| precision | one call / two calls, smallest | median | delegates |")
    print("|---|---|---|---|")
    for precision in ("float32", "w8a8"):
        layers: Mapping[str, LayerQuantization] = {}
        if precision != "float32":
            layers = quantize_layers(unet, observations, Recipe.of(precision)).layers
        network = network_for(unet, layers)
        files = {batch: lower(network, values).data for batch, values in ((2, two), (1, one))}
        times = alternating(LoadedProgram(files[2], "batch 2"), LoadedProgram(files[1], "batch 1"), arguments.rounds)
        delegates = [len(read_contents(files[batch], "artifact").delegates) for batch in (2, 1)]
        smallest, median = (float(np.divide(*reduce(times, axis=1))) for reduce in (np.min, np.median))
        print(f"| {precision} | {smallest:.3f} | {median:.3f} | {delegates[0]}, {delegates[1]} |")


def random_unet(size: int) -> UNet2DConditionModel:
    """Of 6 million parameters, with attention to the text at two of three resolutions."""
    torch.manual_seed(0)
    return (
        UNet2DConditionModel(
            sample_size=size,
            block_out_channels=(64, 128, 128),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=TEXT[1],
            attention_head_dim=4,
        )
        .eval()
        .requires_grad_(False)
    )


def inputs(batch: int, size: int) -> tuple[Tensor, ...]:
    """sample, timestep and encoder_hidden_states of the network."""
    return torch.randn(batch, 4, size, size), torch.tensor([500.0]), torch.randn(batch, *TEXT)


def alternating(both: LoadedProgram, single: LoadedProgram, rounds: int) -> np.ndarray:
    """(2, rounds) wall times in seconds: one call of `both`, then two of `single`. The first round is not counted."""
    shape = both.input_shapes[0]
    values = {batch: inputs(batch, shape[2]) for batch in (1, 2)}
    times = np.zeros((2, rounds + 1))
    for k in range(rounds + 1):
        for row, (program, calls) in enumerate(((both, 1), (single, 2))):
            started = time.perf_counter()
            for _ in range(calls):
                program(*values[2 // calls])
            times[row, k] = time.perf_counter() - started
    return times[:, 1:]


if __name__ == "__main__":
    main()
