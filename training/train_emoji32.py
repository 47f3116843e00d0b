"""Train emoji32: a class-conditional 32x32 DDPM on Noto emoji (Apache-2.0).

    python training/train_emoji32.py --data noto_emoji.npz --run runs/emoji32 --steps 9000
    python training/train_emoji32.py --data noto_emoji.npz --run runs/emoji32 --export models/emoji32

The learning rate is constant after the warm-up and falls linearly to zero over the last
`--decay-steps`, so a run can be prolonged (resume with more steps) or ended early (resume with
fewer). Interrupt at will: the run resumes from its last checkpoint.

The data file holds `x32` (N, 32, 32, 3) uint8, `name` (N,) and `no_skin_tone` (N,) bool; it is the
png/128 folder of github.com/googlefonts/noto-emoji, scaled down on white.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from emoji_groups import CLASSES, NULL_LABEL, class_label

BATCH = 32
LEARNING_RATE = 4e-4
WARMUP_STEPS = 400
EMA_DECAY = 0.998
NULL_PROBABILITY = 0.12  # labels replaced by the null class, for classifier-free guidance
MIN_SNR_GAMMA = 5.0  # Hang et al., "Efficient Diffusion Training via Min-SNR Weighting", eq. 5
CHECKPOINT_STEPS = 250


def build_unet() -> UNet2DModel:
    """4.7 M parameters; attention at 8x8 only, where it costs little on a phone."""
    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(48, 96, 160),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=32,
        num_class_embeds=NULL_LABEL + 1,
    )


def build_scheduler() -> DDPMScheduler:
    """The DDPM paper's linear betas, noise prediction, predicted x0 clipped to [-1, 1]."""
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", clip_sample=True)


def load_images(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, 32, 32) float32 in [-1, 1] and (N,) int64 labels of the emoji that belong to a group."""
    with np.load(path) as data:
        names, plain, pixels = data["name"], data["no_skin_tone"], data["x32"]
    kept = [(i, label) for i, n in enumerate(names) if plain[i] and (label := class_label(str(n))) is not None]
    index = np.array([i for i, _ in kept])
    labels = torch.tensor([label for _, label in kept])
    images = torch.from_numpy(pixels[index]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images, labels


def learning_rate(step: int, steps: int, decay_steps: int) -> float:
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    decay = min(1.0, max(0.0, (steps - step) / decay_steps)) if decay_steps else 1.0
    return LEARNING_RATE * warmup * decay


def save_checkpoint(path: Path, state: dict) -> None:
    """Whole or not at all: a run killed while it writes keeps the checkpoint before."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def train(images: torch.Tensor, labels: torch.Tensor, run: Path, steps: int, decay_steps: int, seed: int) -> None:
    run.mkdir(parents=True, exist_ok=True)
    unet = build_unet().to(memory_format=torch.channels_last)
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())  # faster to train on a CPU than the fused kernel
    ema = build_unet()
    ema.load_state_dict(unet.state_dict())
    scheduler = build_scheduler()
    alphas = scheduler.alphas_cumprod
    snr = alphas / (1 - alphas)
    weight = snr.clamp(max=MIN_SNR_GAMMA) / snr
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
        index = torch.randint(len(images), (BATCH,), generator=generator)
        clean, label = images[index], labels[index].clone()
        label[torch.rand(BATCH, generator=generator) < NULL_PROBABILITY] = NULL_LABEL
        noise = torch.randn(clean.shape, generator=generator)
        timestep = torch.randint(1000, (BATCH,), generator=generator)
        noisy = scheduler.add_noise(clean, noise, timestep).contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, decay_steps)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(noisy, timestep, class_labels=label).sample
        per_image = (predicted.float() - noise).square().mean((1, 2, 3))
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
            rate = (step - first) * BATCH / (time.monotonic() - started)
            log.write(f"{step},{weighted:.6f},{plain:.6f}\n")
            log.flush()
            print(f"step {step}/{steps}  loss {weighted:.4f}  mse {plain:.4f}  {rate:.0f} images/s", flush=True)
            losses.clear()
        if step % CHECKPOINT_STEPS == 0 or step == steps:
            state = {"unet": unet.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(checkpoint, state | {"step": step})
    log.close()


def export(run: Path, folder: Path) -> None:
    """The EMA weights as an ordinary diffusers folder, fp16 safetensors, with the label names."""
    unet = build_unet()
    unet.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["ema"])
    DDPMPipeline(unet=unet.half(), scheduler=build_scheduler()).save_pretrained(folder)
    (folder / "labels.json").write_text(json.dumps({"classes": list(CLASSES), "null": NULL_LABEL}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="noto_emoji.npz")
    parser.add_argument("--run", type=Path, default=Path("runs/emoji32"), help="checkpoints and loss.csv")
    parser.add_argument("--steps", type=int, default=9000, help=f"optimizer steps of {BATCH} images")
    parser.add_argument("--decay-steps", type=int, default=1500, help="last steps, with a falling learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=Path, help="write the diffusers folder from the last checkpoint and stop")
    arguments = parser.parse_args()
    if arguments.export:
        export(arguments.run, arguments.export)
        return
    torch.manual_seed(arguments.seed)
    images, labels = load_images(arguments.data)
    print(f"{len(images)} images: " + ", ".join(f"{c} {int((labels == i).sum())}" for i, c in enumerate(CLASSES)))
    train(images, labels, arguments.run, arguments.steps, arguments.decay_steps, arguments.seed)


if __name__ == "__main__":
    main()
