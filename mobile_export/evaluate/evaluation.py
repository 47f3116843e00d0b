"""Evaluation: everything that is measured about one part of a bundle, as plain arrays and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobile_export.metrics import Interval

VARIANTS = ("reference", "quantized", "corrected")


@dataclass(frozen=True)
class Evaluation:
    """One part of a bundle against the reference, on noise that calibration never saw.

    name: bundle name, e.g. "emoji32-w4a8"; target: e.g. "executorch", and target_title, e.g.
    "ExecuTorch"; precision: e.g. "w4a8".
    labels: (N,) class name of each seed, or "" without classes.
    images: variant -> (N, C, H, W) float32 in [-1, 1]; the same row is the same seed and label.
    strips: variant -> (K, S, C, H, W) float32 in [-1, 1], predicted clean images at `strip_steps`,
        for the first K seeds; strip_steps: (S,) step indices.
    timesteps: (T,) of the sampling plan, never increasing.
    snr_db: "quantized" / "corrected" -> (T,), signal-to-noise ratio of the sample after each step,
        as the next step's network sees it, against the reference's, in dB, over all seeds.
    mean_drift: same keys -> (T, C), mean of (sample - reference sample), in sample units.
    std_ratio: same keys -> (T, C), standard deviation over the reference's, 1 is ideal.
    tables: "output_gain", "output_bias", "input_gain", "input_bias" -> (T, C).
    kept_steps: (T,) bool, False where the correction was dropped because it did not help.

    Three numbers, never merged:
    conversion_parity: artifact against the quantized PyTorch model , the fields of
        `Parity` (backends/backend.py), its limits among them.
    quantization_error: "image_psnr_db" -> Interval of the uncorrected images against the
        reference's (peak 2, range [-1, 1]).
    correction_gain: "image_psnr_db" -> Interval with correction, "image_psnr_gain_db" -> Interval of
        the paired difference, "seeds_improved" -> fraction.
    sampler_parity: largest absolute difference of a step between the device loop and the diffusers
        scheduler, given the same sample and model output.

    artifact: bytes, ideal_bytes, weight_bits_asked, weight_bits_achieved, parameters,
        planned_memory_bytes and delegates (None: only the device decides), undelegated (operator ->
        count), operations (kind -> count), notes (sentences), float_layers (names), size_parts
        (name -> bytes), correction_bytes, step_time_ratio (this artifact's time per step over the
        float32 artifact's, from one alternating run), step_time_note (why it has none, or ""),
        fp32_bytes.
    provenance: ordered name -> text, e.g. model, digests, sampler, calibration, versions.
    """

    name: str
    target: str
    target_title: str
    precision: str
    labels: tuple[str, ...]
    images: Mapping[str, np.ndarray]
    strips: Mapping[str, np.ndarray]
    strip_steps: tuple[int, ...]
    timesteps: np.ndarray
    snr_db: Mapping[str, np.ndarray]
    mean_drift: Mapping[str, np.ndarray]
    std_ratio: Mapping[str, np.ndarray]
    tables: Mapping[str, np.ndarray]
    kept_steps: np.ndarray
    conversion_parity: Mapping[str, Any]
    quantization_error: Mapping[str, Interval]
    correction_gain: Mapping[str, Any]
    sampler_parity: float
    artifact: Mapping[str, Any]
    provenance: Mapping[str, str]
