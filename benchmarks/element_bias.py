"""An input bias for every element of the sample, not one for each channel: is it worth its size? `make results`.

    python benchmarks/element_bias.py build/results/emoji32-w4a8 build/results/digits28-w4a8

Solves both on the same trajectories of a bundle's `.pte`, step after step, keeps a step's where held-out samples come
nearer (as `correction/calibrate.py` does), and judges them on the same held-out seeds. An element's mean is known from
few trajectories only, so a third row shrinks each step's bias by the share of its energy that chance explains. The
correction file has no place for elements: this says what it would gain. The table goes into docs/results.md, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from one_thread import one_thread

from correction import Denoiser, SamplingPlan
from correction.loop import advance, predict
from correction.strength import error_of_samples
from mobile_export.batch import Batch, make_batch
from mobile_export.bundle import Bundle
from mobile_export.evaluate.bundle_evaluation import bundle_subjects
from mobile_export.evaluate.comparison_table import require_place, write_into
from mobile_export.evaluate.network import Network
from mobile_export.metrics import bootstrap, psnr
from mobile_export.models.diffusion_model import TorchDenoiser, load_model
from mobile_export.terminal import TerminalProgress

DOCUMENT, PLACE = Path("docs/results.md"), "element-bias"
SAMPLES, HELD, SEEDS = 48, 12, 64
Fit = Callable[[np.ndarray], np.ndarray]  # differences (N, C, H, W) -> bias that broadcasts to (C, H, W)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    arguments = parser.parse_args()
    require_place(DOCUMENT, PLACE)
    with TerminalProgress() as progress:
        text = "\n\n".join(table(Bundle.open(path), progress) for path in arguments.bundles)
    write_into(DOCUMENT, PLACE, text)
    print(text)


def table(bundle: Bundle, progress: TerminalProgress) -> str:
    """The rows of one bundle as Markdown."""
    model = load_model(bundle.manifest["model"]["source"])
    network, subjects = Network.of_bundle(bundle, "executorch"), bundle_subjects(bundle, model)
    plan = bundle.correction_file("executorch").plan
    reference = subjects.guided(TorchDenoiser(model.unet))
    quantized = subjects.guided(network.denoiser)

    def batch(stream: str, count: int) -> Batch:
        return make_batch(0, stream, range(count), model.sample_shape, subjects.rows(subjects.turn(range(count))))

    calibration, evaluation = batch("calibration", SAMPLES), batch("evaluation", SEEDS)
    nothing = np.zeros((plan.steps, 1, 1, 1), np.float32)
    exact = images(plan, reference, evaluation, nothing)
    plain = psnr(images(plan, quantized, evaluation, nothing), exact)
    rows = []
    fits: dict[str, Fit] = {"a channel (`ibc`)": channels, "an element": elements, "an element, shrunk": shrunk}
    for name, fit in fits.items():
        progress.stage(f"{bundle.name}: a bias for {name}")
        biases = solved(plan, reference, quantized, calibration, fit, progress)
        found = psnr(images(plan, quantized, evaluation, biases), exact)
        kept = int((biases != 0).any((1, 2, 3)).sum())
        rows.append((name, found, kept, 4 * biases.size))
    lines = [
        f"{bundle.name}, {plan.steps} steps, {SAMPLES} calibration trajectories, {SEEDS} held-out seeds:",
        "",
        "| input bias for | image PSNR (dB) | gain (dB) | over `ibc` (dB) | steps | bytes |",
        "|---|---|---|---|---|---|",
    ]
    for name, found, kept, size in rows:
        beside = interval(found - rows[0][1]) if name != rows[0][0] else ""
        lines.append(f"| {name} | {found.mean():.2f} | {interval(found - plain)} | {beside} | {kept} | {size:,} |")
    return "\n".join(lines)


def channels(difference: np.ndarray) -> np.ndarray:
    """The mean of each channel, (C, 1, 1)."""
    return difference.mean((0, 2, 3))[:, None, None]


def elements(difference: np.ndarray) -> np.ndarray:
    """The mean of each element, (C, H, W)."""
    return difference.mean(0)


def shrunk(difference: np.ndarray) -> np.ndarray:
    """The same; what deviates from the channel's mean, times the share of its energy that chance does not explain."""
    mean, whole = elements(difference), channels(difference)
    chance = (difference.var(0, ddof=1) / len(difference)).mean((1, 2))
    energy = np.square(mean - whole).mean((1, 2))
    share = np.clip(1 - chance / np.maximum(energy, 1e-30), 0, 1)[:, None, None]
    return whole + share * (mean - whole)


def solved(
    plan: SamplingPlan,
    reference: Denoiser,
    quantized: Denoiser,
    batch: Batch,
    fit: Fit,
    progress: TerminalProgress,
) -> np.ndarray:
    """(T, C, H, W) float32, or (T, C, 1, 1): the biases, 0 where held-out samples do not come nearer."""
    x = x_hat = np.float32(plan.init_sigma) * batch.noise
    past: list[np.ndarray] = []
    past_hat: list[np.ndarray] = []
    found = []
    for i in range(plan.steps):
        x_next, y = step(plan, reference, i, x, past, batch)
        bias = fit((x.astype(np.float64) - x_hat)[:-HELD]).astype(np.float32)
        choices = [step(plan, quantized, i, x_hat + each, past_hat, batch) for each in (np.zeros_like(bias), bias)]
        errors = [error_of_samples(after[-HELD:], x_next[-HELD:]) for after, _ in choices]
        best = int(errors[1] < errors[0])
        found.append(bias * best)
        x, (x_hat, y_hat) = x_next, choices[best]
        past, past_hat = [y, *past][: plan.history], [y_hat, *past_hat][: plan.history]
        progress.advance(i + 1, plan.steps)
    return np.stack(found)


def images(plan: SamplingPlan, denoiser: Denoiser, batch: Batch, biases: np.ndarray) -> np.ndarray:
    """(N, C, H, W) in [-1, 1]: the device loop with these input biases."""
    x = np.float32(plan.init_sigma) * batch.noise
    past: list[np.ndarray] = []
    for i in range(plan.steps):
        x, y = step(plan, denoiser, i, x + biases[i], past, batch)
        past = [y, *past][: plan.history]
    return np.clip(x, -1, 1)


def step(
    plan: SamplingPlan, denoiser: Denoiser, i: int, x: np.ndarray, past: list[np.ndarray], batch: Batch
) -> tuple[np.ndarray, np.ndarray]:
    m = predict(plan, denoiser, i, x, batch.conditioning)
    return advance(plan, i, x, m, past, batch.step_noise)


def interval(values: np.ndarray) -> str:
    found = bootstrap(values)
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


if __name__ == "__main__":
    one_thread()
    main()
