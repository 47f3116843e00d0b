"""Noise streams: unit-normal noise that depends only on (stream, seed, sample, step), never on batches.

Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a 128-bit key and a
256-bit counter into 256 random bits. Here

    key     = [seed, stream number]                      two 64-bit words
    counter = [block, step, sample, 0]                   four 64-bit words, the first counts blocks of four outputs

with block 1, 2, ..., step 0 for the initial noise and i + 1 for the fresh noise of step i. Different (stream, seed,
sample, step) give different keys or disjoint counter ranges, so calibration noise is never evaluation noise. Pairs of
outputs become pairs of normals by `correction.normals`, in the order of the elements of one sample (C, H, W).
docs/noise.md states the stream for other languages; numpy's distributions, which may change between versions, have no
part in it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from types import MappingProxyType

import numpy as np

from correction.errors import UsageError
from correction.normals import normals
from correction.plan import FloatArray

STREAMS = MappingProxyType({"calibration": 1, "evaluation": 2, "simulation": 3})
_LIMIT = 2**63


def initial_noise(seed: int, stream: str, samples: Iterable[int], shape: tuple[int, ...]) -> FloatArray:
    """(B, *shape) float32 unit-normal noise, one row per sample index.

    Args:
        seed: 0 .. 2^63 - 1.
        stream: "calibration", "evaluation" or "simulation".
        samples: sample indices, 0 .. 2^63 - 1, for example range(8, 16).
        shape: of one sample, usually (C, H, W).

    Raises:
        UsageError: an argument is out of range or the stream is unknown.
    """
    return _noise(seed, stream, samples, 0, shape)


def step_noise(seed: int, stream: str, samples: Iterable[int], step: int, shape: tuple[int, ...]) -> FloatArray:
    """(B, *shape) float32 fresh noise of sampling step `step` (from 0); arguments as in `initial_noise`."""
    return _noise(seed, stream, samples, _index("step", step) + 1, shape)


def step_noises(seed: int, stream: str, samples: Iterable[int], shape: tuple[int, ...]) -> Callable[[int], FloatArray]:
    """The fresh noise of these samples as a function of the step index, as `correction.loop.sample` takes it."""
    kept = tuple(samples)
    return lambda step: step_noise(seed, stream, kept, step, shape)


def _noise(seed: int, stream: str, samples: Iterable[int], word: int, shape: tuple[int, ...]) -> FloatArray:
    if stream not in STREAMS:
        raise UsageError(f"unknown noise stream {stream!r}; there are {', '.join(STREAMS)}.")
    key = np.array([_index("seed", seed), STREAMS[stream]], np.uint64)
    rows = [_normals(key, _index("sample", sample), word, shape) for sample in samples]
    return np.stack(rows) if rows else np.zeros((0, *shape), np.float32)


def _normals(key: np.ndarray, sample: int, word: int, shape: tuple[int, ...]) -> FloatArray:
    count = int(np.prod(shape, dtype=np.int64))
    counter = np.array([0, word, sample, 0], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(count + count % 2)
    return normals(words)[:count].reshape(shape)


def _index(name: str, value: int) -> int:
    number = operator.index(value)
    if not 0 <= number < _LIMIT:
        raise UsageError(f"{name} must be in 0 .. 2^63 - 1, got {number}.")
    return number
