"""The sampling plan: a diffusion scheduler compiled to a table of numbers, one row per step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from correction.errors import TableError

FloatArray = npt.NDArray[np.float32]

MAX_STEPS = 4096
MAX_HISTORY = 8
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
COLUMNS = ("timestep", "input_scale", "p", "q", "clip", "a", "b", "sigma")


@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """N steps of the device loop. Step i does, in float32 and in this order (see `correction.loop`):

        m  = denoiser(input_scale[i] * x, timestep[i])
        y  = p[i] * x + q[i] * m                 clipped to [-clip[i], clip[i]] where clip[i] > 0
        x  = a[i] * x + b[i] * m + sum_j w[i, j] * y_{i-j} + sigma[i] * z

    and the loop starts at x = init_sigma * noise. Every scheduler whose step is linear but for the clip has this form.

    Attributes:
        timestep: [N] what the network is told, >= 0, never increasing (Heun and PLMS call it twice at some).
        input_scale: [N] factor on the sample before the network, > 0.
        p, q: [N] weights of the sample and of the model output in the converted output y (usually the predicted x0).
        clip: [N] bound on |y|; 0 means that y is not clipped.
        a, b: [N] weights of the sample and of the model output in the next sample.
        w: [N, H] weights of the converted outputs, w[:, 0] of the current one, w[:, j] of the one j steps ago;
            H in 1..8 and w[i, j] = 0 for j > i.
        sigma: [N] weight of fresh unit-normal noise, >= 0.
        init_sigma: standard deviation of the first sample, > 0, a float32 value.
        prediction_type: what the network predicts: "epsilon", "sample" or "v_prediction".
        scheduler: class name of the scheduler that was compiled.
        scheduler_config: its configuration, JSON values only.

    All columns are stored as read-only float32.

    Raises:
        TableError: a value is not allowed; `name` says which rule.
    """

    timestep: FloatArray
    input_scale: FloatArray
    p: FloatArray
    q: FloatArray
    clip: FloatArray
    a: FloatArray
    b: FloatArray
    w: FloatArray
    sigma: FloatArray
    init_sigma: float
    prediction_type: str
    scheduler: str
    scheduler_config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*COLUMNS, "w"):
            object.__setattr__(self, name, frozen_float32(name, getattr(self, name)))
        object.__setattr__(self, "init_sigma", float(np.float32(self.init_sigma)))
        self._check_shapes()
        self._check_values()
        if self.prediction_type not in PREDICTION_TYPES:
            raise TableError(
                "bad-metadata", f"prediction_type must be one of {PREDICTION_TYPES}, got {self.prediction_type!r}."
            )
        try:
            json.dumps(dict(self.scheduler_config), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TableError("bad-metadata", f"scheduler_config must hold JSON values only: {error}.") from error

    def _check_shapes(self) -> None:
        steps = self.timestep.size
        if not 1 <= steps <= MAX_STEPS:
            raise TableError("too-many-steps", f"a plan has 1..{MAX_STEPS} steps, got {steps}.")
        for name in COLUMNS:
            if getattr(self, name).shape != (steps,):
                raise TableError(
                    "wrong-shape", f"column {name} must have shape ({steps},), got {getattr(self, name).shape}."
                )
        if self.w.ndim != 2 or self.w.shape[0] != steps:
            raise TableError("wrong-shape", f"w must have shape ({steps}, H), got {self.w.shape}.")
        if not 1 <= self.w.shape[1] <= MAX_HISTORY:
            raise TableError("too-much-history", f"w has 1..{MAX_HISTORY} columns, got {self.w.shape[1]}.")

    def _check_values(self) -> None:
        for name in sorted((*COLUMNS, "w")):
            require_finite(name, getattr(self, name))
        if not np.isfinite(self.init_sigma):
            raise TableError("not-finite", f"init_sigma must be finite, got {self.init_sigma}.")
        late = np.flatnonzero(np.diff(self.timestep) > 0)
        if late.size:
            i = int(late[0]) + 1
            raise TableError(
                "timesteps-not-decreasing",
                f"timesteps must not increase, but step {i} has {self.timestep[i]:g} after {self.timestep[i - 1]:g}.",
            )
        if self.timestep[-1] < 0:
            raise TableError("bad-plan", f"timesteps must be >= 0, got {self.timestep[-1]:g} at the last step.")
        for name, low in (("input_scale", 0.0), ("clip", -1.0), ("sigma", -1.0)):
            column = getattr(self, name)
            bad = column <= 0 if low == 0.0 else column < 0
            if bad.any():
                i = int(np.argmax(bad))
                sign = "> 0" if low == 0.0 else ">= 0"
                raise TableError("bad-plan", f"{name} must be {sign}, got {column[i]:g} at step {i}.")
        if not self.init_sigma > 0:
            raise TableError("bad-plan", f"init_sigma must be > 0, got {self.init_sigma:g}.")
        reach = np.triu(np.ones(self.w.shape, bool), 1)  # [N, H], true where j > i: before the first step
        if (self.w[reach] != 0).any():
            raise TableError("bad-plan", "w[i, j] must be 0 for j > i: there is no converted output before step 0.")

    @property
    def steps(self) -> int:
        """Number of steps N."""
        return int(self.timestep.size)

    @property
    def history(self) -> int:
        """Number of converted outputs H that the loop keeps, the current one included."""
        return int(self.w.shape[1])

    @property
    def needs_noise(self) -> bool:
        """True if any step adds fresh noise."""
        return bool((self.sigma != 0).any())

    def digest(self) -> str:
        """sha256 (hex) over all columns and names: equal digests mean equal plans."""
        total = hashlib.sha256()
        for name in (*COLUMNS, "w"):
            array = getattr(self, name)
            total.update(f"{name}{array.shape}".encode())
            total.update(array.astype("<f4").tobytes())
        rest = [self.init_sigma, self.prediction_type, self.scheduler, dict(self.scheduler_config)]
        total.update(json.dumps(rest, sort_keys=True).encode())
        return total.hexdigest()


def frozen_float32(name: str, values: npt.ArrayLike) -> FloatArray:
    """A read-only, contiguous float32 copy of `values`.

    Raises:
        TableError: the values are not real numbers ("wrong-dtype").
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TableError("wrong-dtype", f"{name} must hold real numbers, got dtype {array.dtype}.")
    with np.errstate(over="ignore"):  # becomes infinity, which require_finite reports by name
        copy = np.array(array, dtype=np.float32, order="C")
    copy.flags.writeable = False
    return copy


def require_finite(name: str, array: npt.NDArray[Any]) -> None:
    """Raises TableError "not-finite", with the place of the first NaN or infinity in `array`."""
    bad = ~np.isfinite(array)
    if bad.any():
        place = tuple(int(k) for k in np.argwhere(bad)[0])
        raise TableError("not-finite", f"{name} must be finite, got {array[place]} at {place}.")
