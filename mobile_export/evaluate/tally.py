"""Tally: what is kept of many trajectories, a few seeds at a time, so that a study does not hold them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from correction import Correction
from correction.tables import NAMES
from mobile_export.evaluate.marked_arrays import read_marked, write_marked
from mobile_export.evaluate.outcome import SHOWN, Outcome
from mobile_export.metrics import IMAGE_PEAK, decibel, psnr

SUMS = ("energies", "moments")
SSIM_SIDE = 11  # of the window, in pixels: smaller images have no SSIM


@dataclass(frozen=True, eq=False)
class Course:
    """One run: samples (N, T, C, H, W) after each step, as the next step's network sees them; outputs, the same shape,
    of the network with the output correction; images (N, C, H, W), decoded."""

    samples: np.ndarray
    outputs: np.ndarray
    images: np.ndarray


@dataclass
class CourseRecorder:
    """Collects a Course through the device loop's on_step."""

    samples: list[np.ndarray] = field(default_factory=list)
    outputs: list[np.ndarray] = field(default_factory=list)

    def __call__(self, i: int, x: np.ndarray, m: np.ndarray, _y: np.ndarray) -> None:
        if i > 0:
            self.samples.append(x)
        self.outputs.append(m)

    def finish(self, last: np.ndarray, decode: Callable[[np.ndarray], np.ndarray]) -> Course:
        return Course(np.stack([*self.samples, last], 1), np.stack(self.outputs, 1), decode(last))


class Tally:
    """Sums and per-seed figures of one network against the reference; add its courses in the order of their seeds."""

    def __init__(self, features: Callable[[np.ndarray], np.ndarray]) -> None:
        self.features = features
        self.figures: dict[str, np.ndarray] = {}  # of all seeds, one after the other
        self.sums: dict[str, np.ndarray] = {}

    @property
    def seeds(self) -> int:
        """How many were added."""
        return len(self.figures.get("psnr", ()))

    def add(self, reference: Course, course: Course) -> None:
        """Some seeds, the same in both."""
        exact, ours = np.clip(reference.images, -1, 1), np.clip(course.images, -1, 1)
        pairs = ((reference.outputs, course.outputs), (reference.samples, course.samples))
        x, r = course.samples.astype(np.float64), reference.samples.astype(np.float64)
        figures = {
            "psnr": psnr(ours, exact),
            "ssim": ssim(ours, exact),
            "features": self.features(ours),
            "images": ours[: max(0, SHOWN - self.seeds)],
        }
        sums = {
            # (4, T): of outputs and their errors, of samples and theirs
            "energies": np.stack([_energy(v) for a, b in pairs for v in (a.astype(np.float64), a - b)]),
            # (5, T, C): count, sums of x, x², x_ref, x_ref²
            "moments": np.stack([v.sum((0, 3, 4)) for v in (np.ones_like(x), x, x * x, r, r * r)]),
        }
        before = self.figures
        self.figures = {k: np.concatenate([before[k], v]) if k in before else v for k, v in figures.items()}
        self.sums = {k: self.sums[k] + v if k in self.sums else v for k, v in sums.items()}

    def save(self, path: Path, mark: str) -> None:
        """Write what was added so far; mark: digest of all that decides it."""
        write_marked(path, self.figures | self.sums, mark)

    @classmethod
    def load(cls, path: Path, mark: str, features: Callable[[np.ndarray], np.ndarray]) -> Tally:
        """What `save` wrote for this mark; an empty one if there is none. Raises CheckFailed for a damaged file."""
        tally, found = cls(features), read_marked(path, mark)
        if found is not None:
            tally.sums = {name: array for name, array in found[0].items() if name in SUMS}
            tally.figures = {name: array for name, array in found[0].items() if name not in SUMS}
        return tally

    def outcome(self, correction: Correction | None) -> Outcome:
        """What the courses so far amount to."""
        energies, (count, x, xx, r, rr) = self.sums["energies"], self.sums["moments"]
        mean, exact = x / count, r / count
        variance, wanted = xx / count - mean**2, rr / count - exact**2
        kept, tables = _used(correction)
        return Outcome(
            **self.figures,
            output_snr=decibel(energies[0], energies[1]),
            sample_snr=decibel(energies[2], energies[3]),
            mean_drift=mean - exact,
            std_ratio=np.sqrt(np.maximum(variance, 0) / np.maximum(wanted, 1e-30)),
            kept=kept,
            tables=tables,
        )


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of each pair of images (N, C, H, W) in [-1, 1], at most 1 (Wang et al. 2004).

    NaN for images of less than 11 pixels a side.
    """
    if min(a.shape[2:]) < SSIM_SIDE:
        return np.full(len(a), np.nan)
    ours, exact = (torch.from_numpy(v.astype(np.float64)) for v in (a, b))
    found = structural_similarity_index_measure(ours, exact, data_range=IMAGE_PEAK, reduction="none")
    if not isinstance(found, torch.Tensor):
        raise TypeError(f"expected the similarities alone, got {type(found).__name__}")
    return found.numpy().reshape(len(a))


def _energy(values: np.ndarray) -> np.ndarray:
    return np.square(values, dtype=np.float64).sum((0, 2, 3, 4))


def _used(correction: Correction | None) -> tuple[int, int]:
    """(steps that a correction changes, its tables that are not the identity's)."""
    if correction is None:
        return 0, 0
    changed = {name: getattr(correction, name) != (1 if name.endswith("gain") else 0) for name in NAMES}
    steps = np.any([table.any(1) for table in changed.values()], axis=0)
    return int(steps.sum()), sum(bool(table.any()) for table in changed.values())
