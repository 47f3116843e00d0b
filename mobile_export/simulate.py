"""Simulation: the phone's loop on the real artifact, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from correction import Correction, Denoiser, GuidedDenoiser, SamplingPlan, UsageError, initial_noise, sample
from correction.loop import OnStep
from correction.noise import step_noises
from mobile_export.backends import get_backend
from mobile_export.bundle import Bundle

STREAM = "simulation"
MAX_SAMPLES = 4096


@dataclass(frozen=True)
class Batch:
    """Noise and conditioning of some samples: everything a run needs besides the plan and the network.

    noise: (B, C, H, W) float32; step_noise: step index -> fresh noise of the same shape;
    labels: (B,) int64, or None for an unconditional model.
    """

    noise: np.ndarray
    step_noise: Callable[[int], np.ndarray]
    labels: np.ndarray | None

    def rows(self, rows: slice) -> Batch:
        """Some of the samples."""
        labels = None if self.labels is None else self.labels[rows]
        return Batch(self.noise[rows], lambda i: self.step_noise(i)[rows], labels)

    @property
    def conditioning(self) -> dict[str, np.ndarray]:
        return {} if self.labels is None else {"class_labels": self.labels}


def make_batch(
    seed: int, stream: str, samples: Sequence[int], shape: tuple[int, ...], labels: Sequence[int] | None
) -> Batch:
    """Sample k of a seed is the same in every batch. shape: (C, H, W); labels: one for each sample."""
    return Batch(
        initial_noise(seed, stream, samples, shape),
        step_noises(seed, stream, samples, shape),
        None if labels is None else np.asarray(labels, dtype=np.int64),
    )


def guided(denoiser: Denoiser, scale: float, null_label: int | None) -> Denoiser:
    """The denoiser with classifier-free guidance; scale 1 is the denoiser itself."""
    if scale == 1:
        return denoiser
    if null_label is None:
        raise UsageError(f"guidance {scale:g} needs a null class, which this model does not have: use guidance 1")
    return GuidedDenoiser(denoiser, scale, {"class_labels": np.array([null_label])})


def run(
    plan: SamplingPlan,
    denoiser: Denoiser,
    batch: Batch,
    correction: Correction | None = None,
    on_step: OnStep | None = None,
) -> np.ndarray:
    """The device loop over a batch: (B, C, H, W) float32, images in [-1, 1]."""
    step_noise = batch.step_noise if plan.needs_noise else None
    return sample(plan, denoiser, batch.noise, correction, step_noise, batch.conditioning, on_step)


def bundle_denoiser(bundle: Bundle, target: str) -> Denoiser:
    """The artifact of one part with the guidance of the manifest."""
    model = bundle.manifest["model"]
    denoiser = get_backend(target).load(bundle.artifact(target))
    return guided(denoiser, float(bundle.manifest["guidance"]), model["null_label"])


def bundle_labels(model: Mapping, count: int, class_name: str | None) -> list[int] | None:
    """Labels of `count` samples: all of the named class, or the classes in turn; None without classes.

    Raises UsageError for an unknown class, naming those that exist.
    """
    classes = model["classes"]
    if class_name is not None and class_name not in classes:
        raise UsageError(f"unknown class {class_name!r}: this bundle has {', '.join(classes) or 'no classes'}")
    if not classes:
        return None
    return [classes.index(class_name) if class_name is not None else k % len(classes) for k in range(count)]


def simulate(
    bundle: Bundle,
    count: int,
    seed: int,
    class_name: str | None = None,
    corrected: bool = True,
    target: str | None = None,
    on_sample: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, list[str]]:
    """`count` images of a bundle: ((N, C, H, W) float32 in [-1, 1], class name of each or "").

    target: whose artifact is run, by default the first that the bundle has.
    on_sample(done, count) is called after each image. Raises UsageError for a count or class that
    the bundle cannot serve, NonFiniteError naming the step where a value is not finite.
    """
    if not 1 <= count <= MAX_SAMPLES:
        raise UsageError(f"the number of images must be 1 to {MAX_SAMPLES}, got {count}")
    model = bundle.manifest["model"]
    image = bundle.manifest["image"]
    labels = bundle_labels(model, count, class_name)
    target = target or bundle.targets[0]
    file = bundle.correction_file(target)
    denoiser = bundle_denoiser(bundle, target)
    shape = (image["channels"], image["height"], image["width"])
    images = []
    for k in range(count):
        batch = make_batch(seed, STREAM, [k], shape, None if labels is None else labels[k : k + 1])
        images.append(run(file.plan, denoiser, batch, file.correction if corrected else None))
        if on_sample is not None:
            on_sample(k + 1, count)
    names = [""] * count if labels is None else [model["classes"][label] for label in labels]
    return np.concatenate(images), names
