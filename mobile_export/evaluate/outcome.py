"""Outcome: what one correction did to one network on one sampler, seed by seed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from mobile_export.evaluate.marked_arrays import read_marked, unreadable, write_marked

SHOWN = 8  # images kept for pictures
REFERENCE = "reference"  # the network of the rows that others are compared with


@dataclass(frozen=True)
class OutcomeKey:
    """Which outcome. network: REFERENCE, or a bundle's name and target; method: as in StudySettings."""

    network: str
    sampling: str
    method: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """N seeds, T steps, C channels.

    psnr, ssim: (N,) of the final images against the reference's, dB and up to 1. features: (N, 64) of the images.
    output_snr, sample_snr: (T,) dB, the reference's energy over the error's: of the model output, each at its own
    sample, and of the sample after the step. mean_drift: (T, C), of the sample, in its units; std_ratio: (T, C), 1 is
    ideal. images: (8, ...) or fewer, the first seeds'. kept: steps that the correction changes; tables: those of
    its four tables that are not the identity.
    """

    psnr: np.ndarray
    ssim: np.ndarray
    features: np.ndarray
    output_snr: np.ndarray
    sample_snr: np.ndarray
    mean_drift: np.ndarray
    std_ratio: np.ndarray
    images: np.ndarray
    kept: int = 0
    tables: int = 0

    @property
    def correction_bytes(self) -> int:
        """Float32 numbers that differ from the identity's tables, in bytes."""
        return 4 * self.tables * self.mean_drift.size

    def save(self, path: Path, key: OutcomeKey, mark: str) -> None:
        """Write it with its key; mark: digest of all that decides it."""
        about = {"key": json.dumps(asdict(key)), "kept": str(self.kept), "tables": str(self.tables)}
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "np.ndarray"}
        write_marked(path, arrays, mark, about)

    @staticmethod
    def load(path: Path, mark: str) -> Outcome | None:
        """What `save` wrote for this mark; None if there is none. Raises CheckFailed for a file that cannot be read."""
        found = read_marked(path, mark)
        if found is None:
            return None
        arrays, about = found
        try:
            return Outcome(**arrays, kept=int(about["kept"]), tables=int(about["tables"]))
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(path, error) from error
