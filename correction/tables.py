"""The correction: four numbers per step and channel."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from correction.errors import TableError
from correction.plan import MAX_STEPS, FloatArray, frozen_float32, require_finite

MAX_CHANNELS = 4096
GAIN_LOW, GAIN_HIGH = (0.1, 10.0)  # outside, the quantized network is broken rather than off: no gain repairs it
NAMES = ("output_gain", "output_bias", "input_gain", "input_bias")
_GAIN_BOUNDS = np.float32(GAIN_LOW), np.float32(GAIN_HIGH)


@dataclass(frozen=True, eq=False)
class Correction:
    """Per-step, per-channel corrections of a quantized denoiser.

    At step i the loop applies `x = input_gain[i] * x + input_bias[i]` to the sample (the network sees the result and
    the update uses it) and `m = output_gain[i] * m + output_bias[i]` to the model output. TAC (arXiv 2407.03917) is
    output_gain (its NER) and input_bias (its IBC) with the other two at identity.

    Attributes:
        output_gain, input_gain: [T, C] float32, finite, within [0.1, 10]; identity 1.
        output_bias, input_bias: [T, C] float32, finite; identity 0.

    Raises:
        TableError: a value is not allowed; `name` says which rule.
    """

    output_gain: FloatArray
    output_bias: FloatArray
    input_gain: FloatArray
    input_bias: FloatArray

    def __post_init__(self) -> None:
        for name in NAMES:
            object.__setattr__(self, name, frozen_float32(name, getattr(self, name)))
        shape = self.output_gain.shape
        if len(shape) != 2:
            raise TableError("wrong-shape", f"output_gain must have shape (steps, channels), got {shape}.")
        if not 1 <= shape[0] <= MAX_STEPS:
            raise TableError("too-many-steps", f"a correction has 1..{MAX_STEPS} steps, got {shape[0]}.")
        if not 1 <= shape[1] <= MAX_CHANNELS:
            raise TableError("too-many-channels", f"a correction has 1..{MAX_CHANNELS} channels, got {shape[1]}.")
        for name in NAMES:
            if getattr(self, name).shape != shape:
                raise TableError("wrong-shape", f"{name} must have shape {shape}, got {getattr(self, name).shape}.")
        for name in sorted(NAMES):
            require_finite(name, getattr(self, name))
        for name in ("input_gain", "output_gain"):
            gain = getattr(self, name)
            bad = ~gain_allowed(gain)
            if bad.any():
                i, c = (int(k) for k in np.argwhere(bad)[0])
                raise TableError(
                    "gain-out-of-bounds",
                    f"{name} must lie within [{GAIN_LOW}, {GAIN_HIGH}], got {gain[i, c]:g} at step {i}, channel {c}.",
                )

    @staticmethod
    def identity(steps: int, channels: int) -> Correction:
        """The correction that changes nothing: gains 1, biases 0, shape [steps, channels]."""
        shape = (steps, channels)
        return Correction(
            np.ones(shape, np.float32), np.zeros(shape, np.float32), np.ones(shape, np.float32),
            np.zeros(shape, np.float32),
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return int(self.output_gain.shape[0])

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.output_gain.shape[1])

    @property
    def is_identity(self) -> bool:
        """True if no step changes anything."""
        gains = (self.output_gain == 1).all() and (self.input_gain == 1).all()
        return bool(gains and (self.output_bias == 0).all() and (self.input_bias == 0).all())

    def digest(self) -> str:
        """sha256 (hex) over the four tables and their shape."""
        total = hashlib.sha256(f"{self.steps},{self.channels}".encode())
        for name in NAMES:
            total.update(getattr(self, name).astype("<f4").tobytes())
        return total.hexdigest()


def gain_allowed(gain: np.ndarray) -> np.ndarray:
    """Elementwise: is the gain, as a float32, within [0.1, 10]? NaN is not."""
    gain32 = np.asarray(gain).astype(np.float32)
    return (gain32 >= _GAIN_BOUNDS[0]) & (gain32 <= _GAIN_BOUNDS[1])
