"""What the autoencoder's decoder of Stable Diffusion 1.5 takes of memory by itself, at 512 x 512.

    python benchmarks/decoder_memory.py build/decoder.pte

Random weights of the published configuration, 8 bits. Each line is the most that was resident in a stage, above what
was when it began: PyTorch's own run, lowering, loading the `.pte`, and running it, with what loading took.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from scale import AUTOENCODER, GIB, memory, reset_peak

from mobile_export.backends.executorch.lowering import lower
from mobile_export.backends.executorch.network import network_for
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.models.vae_decoder import VaeDecoder
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import quantize_layers
from mobile_export.quiet import quiet_third_parties

RECIPE = Recipe.of("w8a16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="where the artifact goes")
    path = parser.parse_args().path
    torch.manual_seed(0)
    decoder = VaeDecoder(AutoencoderKL(**AUTOENCODER)).eval().requires_grad_(False)
    latents, floats = torch.randn(1, 4, 64, 64), 4 * sum(each.numel() for each in decoder.parameters())

    def stage(name: str, work: Callable[[], Any], since: int | None = None) -> Any:
        reset_peak()
        began = memory("VmRSS") if since is None else since
        result = work()
        taken = memory("VmHWM") - began
        print(f"{name}: {taken / GIB:.2f} GiB, {taken / floats:.1f} of the float32 weights", flush=True)
        return result

    with torch.no_grad():
        stage("PyTorch, float32", lambda: decoder(latents))
        layers = quantize_layers(decoder, observe_layers(decoder, lambda: None, RECIPE), RECIPE).layers
        stage("lowering", lambda: lower(network_for(decoder, layers).eval(), (latents,), into=path))
        reset_peak()
        before = memory("VmRSS")
        program = stage("artifact, loaded", lambda: LoadedProgram(path, str(path)))
        stage("artifact, run", lambda: program(latents), before)


if __name__ == "__main__":
    quiet_third_parties()
    main()
