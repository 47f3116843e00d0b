"""Check: an `Evaluation` is complete and consistent before a page is made of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from correction.errors import UsageError
from mobile_export.evaluate.evaluation import VARIANTS, Evaluation
from mobile_export.metrics import Interval
from mobile_export.pictures import CHANNELS

CORRECTED = ("quantized", "corrected")
IDENTITY = {"output_gain": 1.0, "output_bias": 0.0, "input_gain": 1.0, "input_bias": 0.0}
PARITY_KEYS = (
    "weight_codes_equal",
    "layers",
    "activation_codes_compared",
    "flip_rate",
    "worst_code_step",
    "lockstep_output_error",
    "timesteps",
    "output_max_abs",
    "declared_error",
    "declared_flip_rate",
    "free_running_error",
    "limits",
)
ARTIFACT_KEYS = (
    "bytes",
    "ideal_bytes",
    "weight_bits_asked",
    "weight_bits_achieved",
    "parameters",
    "planned_memory_bytes",
    "delegates",
    "undelegated",
    "operations",
    "notes",
    "float_layers",
    "size_parts",
    "correction_bytes",
    "step_time_ratio",
    "step_time_note",
    "fp32_bytes",
)


class ReportError(UsageError):
    """An evaluation cannot be reported: something is missing or has the wrong shape."""


def check(evaluation: Evaluation) -> None:
    """Refuse an evaluation whose parts do not fit together.

    Raises:
        ReportError: names the bundle, the field, what was expected and what was found.
    """
    count, steps = len(evaluation.labels), len(evaluation.timesteps)
    _keys(evaluation, "images", evaluation.images, VARIANTS)
    _keys(evaluation, "strips", evaluation.strips, VARIANTS)
    _keys(evaluation, "tables", evaluation.tables, IDENTITY)
    _keys(evaluation, "conversion_parity", evaluation.conversion_parity, PARITY_KEYS)
    _keys(evaluation, "artifact", evaluation.artifact, ARTIFACT_KEYS)
    _keys(evaluation, "quantization_error", evaluation.quantization_error, ["image_psnr_db"])
    gain_keys = ["image_psnr_db", "image_psnr_gain_db", "seeds_improved"]
    _keys(evaluation, "correction_gain", evaluation.correction_gain, gain_keys)
    if not evaluation.artifact["bytes"]:
        raise ReportError(f"{evaluation.name}: artifact needs bytes > 0, got {evaluation.artifact['bytes']}.")
    for name, value in (
        ("quantization_error[image_psnr_db]", evaluation.quantization_error["image_psnr_db"]),
        ("correction_gain[image_psnr_db]", evaluation.correction_gain["image_psnr_db"]),
        ("correction_gain[image_psnr_gain_db]", evaluation.correction_gain["image_psnr_gain_db"]),
    ):
        if not isinstance(value, Interval):
            raise ReportError(f"{evaluation.name}: {name} must be an Interval, got {type(value).__name__}.")
    if count == 0 or steps == 0:
        raise ReportError(f"{evaluation.name}: expected at least one seed and one step, got {count} and {steps}.")
    picture = np.shape(evaluation.images["reference"])[1:]
    if len(picture) != 3 or picture[0] not in CHANNELS:
        raise ReportError(f"{evaluation.name}: images must be (N, 1 or 3, H, W), got (N, {picture}).")
    strips = (*np.shape(evaluation.strips["reference"])[:1], len(evaluation.strip_steps), *picture)
    if strips[0] > count:
        raise ReportError(f"{evaluation.name}: strips show {strips[0]} seeds, images only {count}.")
    for variant in VARIANTS:
        _shape(evaluation, f"images[{variant}]", evaluation.images[variant], (count, *picture))
        _shape(evaluation, f"strips[{variant}]", evaluation.strips[variant], strips)
    outside = [step for step in evaluation.strip_steps if not 0 <= step < steps]
    if outside:
        raise ReportError(f"{evaluation.name}: strip_steps must be step indices in 0..{steps - 1}, got {outside}.")
    channels = np.shape(evaluation.tables["output_gain"])[-1]
    for name, table in evaluation.tables.items():
        _shape(evaluation, f"tables[{name}]", table, (steps, channels))
        if not np.isfinite(table).all():
            raise ReportError(f"{evaluation.name}: tables[{name}] holds NaN or infinite values.")
    for key in CORRECTED:
        for field in ("snr_db", "mean_drift", "std_ratio"):
            _keys(evaluation, field, getattr(evaluation, field), CORRECTED)
        _shape(evaluation, f"snr_db[{key}]", evaluation.snr_db[key], (steps,))
        _shape(evaluation, f"mean_drift[{key}]", evaluation.mean_drift[key], (steps, channels))
        _shape(evaluation, f"std_ratio[{key}]", evaluation.std_ratio[key], (steps, channels))
    _shape(evaluation, "kept_steps", evaluation.kept_steps, (steps,))


def _keys(evaluation: Evaluation, field: str, mapping: Collection[str], expected: Collection[str]) -> None:
    missing = [key for key in expected if key not in mapping]
    if missing:
        raise ReportError(f"{evaluation.name}: {field} lacks {', '.join(missing)}; it has {', '.join(mapping) or '-'}.")


def _shape(evaluation: Evaluation, field: str, array: npt.ArrayLike, expected: Sequence[int]) -> None:
    got = np.shape(array)
    if got != tuple(expected):
        raise ReportError(f"{evaluation.name}: {field} must have shape {tuple(expected)}, got {got}.")
