"""Train a class-conditional UNet as a DDPM: the loop of every model in the zoo, with checkpoints that it resumes from.

The learning rate is constant after the warm-up and falls linearly to zero over the last `decay_steps`, so a run can be
prolonged (resume with more steps) or ended early (resume with fewer). Interrupt at will.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor

LEARNING_RATE = 4e-4
WARMUP_STEPS = 400
EMA_DECAY = 0.998
NULL_PROBABILITY = 0.12  # labels replaced by the null class, for classifier-free guidance
MIN_SNR_GAMMA = 5.0
CHECKPOINT_STEPS = 250


@dataclass(frozen=True)
class Training:
    """What is trained.

    classes: names of the labels 0, 1, ...; the label after the last is the null class of guidance.
    batch: images a step.
    """

    unet: Callable[[], UNet2DModel]
    scheduler: Callable[[], DDPMScheduler]
    classes: tuple[str, ...]
    batch: int

    @property
    def null(self) -> int:
        return len(self.classes)


def loss_weights(scheduler: DDPMScheduler) -> torch.Tensor:
    """(1000,) weights of the squared error (Hang et al. 2023, "Min-SNR Weighting", eq. 5)."""
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    velocity = scheduler.config.prediction_type == "v_prediction"
    return snr.clamp(max=MIN_SNR_GAMMA) / (snr + 1 if velocity else snr)


def learning_rate(step: int, steps: int, decay_steps: int) -> float:
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    decay = min(1.0, max(0.0, (steps - step) / decay_steps)) if decay_steps else 1.0
    return LEARNING_RATE * warmup * decay


def save_checkpoint(path: Path, state: dict) -> None:
    """Whole or not at all: a run killed while it writes keeps the checkpoint before."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def train(
    what: Training, images: torch.Tensor, labels: torch.Tensor, run: Path, steps: int, decay_steps: int, seed: int
) -> None:
    """images: (N, C, H, W) float32 in [-1, 1]; labels: (N,) int64; run: folder of checkpoint.pt and loss.csv."""
    run.mkdir(parents=True, exist_ok=True)
    unet = what.unet().to(memory_format=torch.channels_last)
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())  # faster to train on a CPU than the fused kernel
    ema = what.unet()
    ema.load_state_dict(unet.state_dict())
    scheduler = what.scheduler()
    velocity = scheduler.config.prediction_type == "v_prediction"
    weight = loss_weights(scheduler)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    checkpoint, step = run / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        unet.load_state_dict(state["unet"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        print(f"resumed at step {step}", flush=True)
    generator = torch.Generator().manual_seed(seed + step)
    log = (run / "loss.csv").open("a")
    started, losses = time.monotonic(), []
    first = step
    while step < steps:
        index = torch.randint(len(images), (what.batch,), generator=generator)
        clean, label = images[index], labels[index].clone()
        label[torch.rand(what.batch, generator=generator) < NULL_PROBABILITY] = what.null
        noise = torch.randn(clean.shape, generator=generator)
        timestep = torch.randint(1000, (what.batch,), generator=generator)
        noisy = scheduler.add_noise(clean, noise, timestep).contiguous(memory_format=torch.channels_last)
        wanted = scheduler.get_velocity(clean, noise, timestep) if velocity else noise
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, decay_steps)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(noisy, timestep, class_labels=label).sample
        per_image = (predicted.float() - wanted).square().mean((1, 2, 3))
        loss = (per_image * weight[timestep]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(unet.parameters()), 1 - decay)
        losses.append((loss.item(), per_image.mean().item()))
        if step % 50 == 0:
            weighted, plain = np.mean(losses, axis=0)
            rate = (step - first) * what.batch / (time.monotonic() - started)
            log.write(f"{step},{weighted:.6f},{plain:.6f}\n")
            log.flush()
            print(f"step {step}/{steps}  loss {weighted:.4f}  mse {plain:.4f}  {rate:.0f} images/s", flush=True)
            losses.clear()
        if step % CHECKPOINT_STEPS == 0 or step == steps:
            state = {"unet": unet.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(checkpoint, state | {"step": step})
    log.close()


def export(what: Training, run: Path, folder: Path) -> None:
    """The EMA weights as an ordinary diffusers folder, fp16 safetensors, with the label names."""
    unet = what.unet()
    unet.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["ema"])
    DDPMPipeline(unet=unet.half(), scheduler=what.scheduler()).save_pretrained(folder)
    (folder / "labels.json").write_text(json.dumps({"classes": list(what.classes), "null": what.null}, indent=1) + "\n")


def main(
    what: Training, load: Callable[[Path], tuple[torch.Tensor, torch.Tensor]], name: str, steps: int, about: str
) -> None:
    """The command line of a training script. load: the data file -> images and labels; steps: unless told otherwise."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the data file; needed for training")
    parser.add_argument("--run", type=Path, default=Path("runs") / name, help="checkpoints and loss.csv")
    parser.add_argument("--steps", type=int, default=steps, help=f"optimizer steps of {what.batch} images")
    parser.add_argument("--decay-steps", type=int, default=1500, help="last steps, with a falling learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=Path, help="write the diffusers folder from the last checkpoint and stop")
    arguments = parser.parse_args()
    if arguments.export:
        export(what, arguments.run, arguments.export)
        return
    if arguments.data is None:
        parser.error("--data is needed, unless --export is given")
    torch.manual_seed(arguments.seed)
    images, labels = load(arguments.data)
    counts = ", ".join(f"{name} {int((labels == i).sum())}" for i, name in enumerate(what.classes))
    print(f"{len(images)} images: {counts}")
    train(what, images, labels, arguments.run, arguments.steps, arguments.decay_steps, arguments.seed)
