"""A model of the size of Stable Diffusion 1.5 through the whole export: memory, time and size. `make scale`.

    python benchmarks/scale.py build/scale --precision w8a8

The networks have the published configuration and random weights, so the pictures are noise. They are written to the
folder once, as an ordinary diffusers pipeline. Peak memory is the resident set of the export's own process, read and
reset where a component begins; what the imports alone take is told and subtracted.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobile_export.backends.backend import BackendOptions
from mobile_export.bundle import Bundle
from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.memory import release_memory
from mobile_export.models.component import COMPONENTS, Component
from mobile_export.models.diffusion_model import load_model
from mobile_export.progress import Progress
from mobile_export.quantize.half_embedding import large_embeddings
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import matrix_layers
from mobile_export.quiet import quiet_third_parties
from mobile_export.simulate import bundle_request, draw

PROMPT = "a photo of a cat"
GIB = 2**30


class Stages(Progress):
    """Time of each stage; peak memory of each component, in bytes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.component, self.title, self.started = "loading", "", time.monotonic()

    def stage(self, title: str) -> None:
        self.finish()
        name = next((each for each in COMPONENTS if each in title), self.component)
        if title.startswith("quantize to"):
            name = "unet"
        elif title.startswith("verify"):
            name = "verification"
        self.component, self.title, self.started = name, title, time.monotonic()
        reset_peak()
        print(f"  {time.strftime('%H:%M:%S')} {title}", flush=True)

    def advance(self, done: int, total: int) -> None:
        """Nothing is shown."""

    def finish(self) -> None:
        """The end of the stage that is under way."""
        if self.title:
            self.seconds[self.title] = time.monotonic() - self.started
            print(
                f"           {self.seconds[self.title]:.0f} s, peak {memory('VmHWM') / GIB:.2f} GiB, "
                f"now {memory('VmRSS') / GIB:.2f}",
                flush=True,
            )
        self.peaks[self.component] = max(self.peaks.get(self.component, 0), memory("VmHWM"))


def memory(kind: str) -> int:
    """Bytes of a line of /proc/self/status: VmRSS is what is resident, VmHWM the most that was."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(kind))
    return 1024 * int(line.split()[1])


def reset_peak() -> None:
    """VmHWM begins anew at what is resident now."""
    release_memory()
    Path("/proc/self/clear_refs").write_text("5")


AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
SMALL = {  # a UNet of the same inputs
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
}


def write_pipeline(folder: Path, unet: Mapping[str, Any]) -> None:
    """Random networks of the published configuration, but for what is said of the UNet; one after the other."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    pipeline = StableDiffusionPipeline(
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, **unet),  # diffusers' defaults are SD 1.5's
        vae=AutoencoderKL(**AUTOENCODER),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="w8a8")
    parser.add_argument("--unet-only", action="store_true", help="take embeddings and no other network along")
    parser.add_argument("--small-unet", action="store_true", help="measure the networks around the UNet alone")
    arguments = parser.parse_args()
    name = "around" if arguments.small_unet else "sd15"
    source, target = arguments.folder / name, arguments.folder / f"{name}-{arguments.precision}"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not (source / "model_index.json").is_file():
        print("write the pipeline", flush=True)
        write_pipeline(source, SMALL if arguments.small_unet else {})
        release_memory()
    for old in (target, target.with_name(f".{target.name}.partial")):  # nothing is taken from an earlier run
        shutil.rmtree(old, ignore_errors=True)
    settings = ExportSettings(
        Recipe.of(arguments.precision),
        steps=2,
        calibration_samples=4,
        range_samples=1,
        targets=("executorch",),
        options=BackendOptions(workers=1),
        prompts=(PROMPT,) if arguments.unet_only else (),
    )
    reset_peak()
    before, stages, started = memory("VmRSS"), Stages(), time.monotonic()
    bundle = export(str(source), target, settings, stages)
    stages.finish()
    seconds = time.monotonic() - started
    print_table(bundle, stages, before)
    print_sizes(bundle, {name: load_model(str(source)).component(name) for name in bundle.components("executorch")})
    print(f"\nexport: {seconds / 60:.1f} minutes; the imports alone take {before / GIB:.2f} GiB")
    started = time.monotonic()
    found = draw(bundle, bundle_request(bundle, 1, prompts=(PROMPT,), steps=2))
    finite = bool(np.isfinite(found.images).all())
    seconds = time.monotonic() - started
    print(f"two steps and the decoder on the artifacts: {seconds:.0f} s, {found.images.shape}, {finite=}")


def print_table(bundle: Bundle, stages: Stages, before: int) -> None:
    """A row for each component."""
    print(
        "\n| component | parameters | float32 bytes | peak above imports / float32 | artifact bytes | of it weights ",
        end="",
    )
    print("| bits x weights / 8 | ratio |\n|---|---|---|---|---|---|---|---|")
    for name in bundle.components("executorch"):
        entry = bundle.component("executorch", name)
        parameters, sizes = entry["parameters"], entry["description"]["size_parts"]
        peak = (stages.peaks[name] - before) / (4 * parameters)
        weights = sizes["weights, scales and biases"]
        ideal = entry["weight_bits_asked"] * parameters / 8
        print(
            f"| {name} {entry['precision']} | {parameters:,} | {4 * parameters:,} | {peak:.2f} "
            f"| {bundle.artifact_bytes('executorch', name):,} | {weights:,} | {ideal:,.0f} "
            f"| {bundle.artifact_bytes('executorch', name) / ideal:.3f} |"
        )


def print_sizes(bundle: Bundle, components: Mapping[str, Component]) -> None:
    """Bytes by what they are for, counted from the networks: a row for each component.

    The ratio is of the artifact without what is listed before it (bits beyond those asked, scales and biases, numbers
    that are not quantized: norms, embeddings, image convolutions); the graph, padding and whatever else is in it.
    """
    print(
        "\n| component | bits x quantized weights / 8 | more bits in some layers | scales and biases | not quantized "
        "| artifact without these three / (bits x parameters / 8) |\n|---|---|---|---|---|---|"
    )
    for name, component in components.items():
        entry = bundle.component("executorch", name)
        recipe, asked = Recipe.of(entry["precision"]), entry["weight_bits_asked"]
        codes = more = channels = 0
        plain = 4 * component.parameters
        for layer, module in matrix_layers(component.network):
            bits, count, outputs = recipe.layer(layer).bits, module.weight.numel(), len(module.weight)
            if bits is not None:
                codes, more = codes + count * asked // 8, more + count * (bits - asked) // 8
                channels += 8 * outputs
                plain -= 4 * (count + (0 if module.bias is None else outputs))
        tables = [component.network.get_parameter(f"{each}.weight") for each in large_embeddings(component.network)]
        plain -= sum(2 * table.numel() for table in tables)
        rest = bundle.artifact_bytes("executorch", name) - more - channels - plain
        print(
            f"| {name} {entry['precision']} | {codes:,} | {more:,} | {channels:,} | {plain:,} "
            f"| {rest / (asked * component.parameters / 8):.3f} |"
        )


if __name__ == "__main__":
    quiet_third_parties()
    main()
