"""Remembered: a denoiser that is asked once for each sample, however many corrections are solved against it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from correction import Denoiser

MAX_BYTES = 2**30  # of remembered outputs


class Remembered:
    """The outputs of another denoiser by what it was given, bit for bit; those that came first, up to one GiB."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self._known: dict[bytes, np.ndarray] = {}
        self._bytes = 0

    def __call__(self, sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
        key = hashlib.sha256(f"{sample.shape} {timestep}".encode())
        key.update(np.ascontiguousarray(sample).data)
        for name, array in sorted(conditioning.items()):
            key.update(name.encode() + np.ascontiguousarray(array).tobytes())
        digest = key.digest()
        if digest in self._known:
            return self._known[digest]
        output = self.denoiser(sample, timestep, **conditioning)
        if self._bytes + output.nbytes <= MAX_BYTES:
            self._known[digest] = output
            self._bytes += output.nbytes
        return output
