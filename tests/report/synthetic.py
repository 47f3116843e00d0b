"""Synthetic bundles: coloured discs on 16 x 16 pixels, deterministic and nothing like a real measurement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mobile_export.evaluate.evaluation import Evaluation
from mobile_export.metrics import Interval

LABELS = ("faces", "animals", "food & drink", "travel")


def discs(count: int, side: int = 16) -> np.ndarray:
    """(count, 3, side, side) in [-1, 1]: a disc of one colour on white, another place and size per image."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1) * 2 - 1
    images = np.ones((count, 3, side, side))
    for index in range(count):
        random = np.random.default_rng(index)
        centre, radius, colour = random.uniform(-0.3, 0.3, 2), random.uniform(0.4, 0.8), random.uniform(-1, 1, 3)
        inside = np.clip((radius - np.hypot(x - centre[0], y - centre[1])) * 6 + 0.5, 0, 1)
        images[index] += inside * (colour[:, None, None] - 1) * (1 + 0.25 * y)
    return np.clip(images, -1, 1).astype(np.float32)


def make_evaluation(
    precision: str = "w4a8", *, noise: float = 0.12, gain: float = 2.4, steps: int = 24, seeds: int = 12, side: int = 16
) -> Evaluation:
    """An `Evaluation` whose correction gains `gain` dB (negative: loses), with T = steps and C = 3."""
    random = np.random.default_rng(7)
    reference = discs(seeds, side)
    scale = {"reference": 0.0, "quantized": noise, "corrected": noise * 10 ** (-gain / 20)}
    error = random.standard_normal(reference.shape)
    images = {name: np.clip(reference + s * error, -1, 1).astype(np.float32) for name, s in scale.items()}
    strip_steps = tuple(np.linspace(0, steps - 1, 8).round().astype(int).tolist())
    blend = np.linspace(0.1, 1, 8)[None, :, None, None, None]
    fog = random.standard_normal((2, 8, 3, side, side)) * 0.6
    strips = {
        name: np.clip(blend * picture[:2, None] + (1 - blend) * fog, -1, 1).astype(np.float32)
        for name, picture in images.items()
    }
    time = np.linspace(0, 1, steps)
    channels = np.array([1.0, 0.6, -0.5])
    drift = 0.08 * noise / 0.12 * time[:, None] ** 2 * channels + 0.002 * random.standard_normal((steps, 3))
    ratio = 1 + drift * [0.8, -0.4, 0.5]
    left = 10 ** (-gain / 20)
    before = 20 - 20 * np.log10(noise / 0.12)
    kept = np.ones(steps, dtype=bool)
    kept[:3] = kept[-2:] = False
    output_gain = np.where(kept[:, None], 1 + 0.05 * np.sin(3 * time)[:, None] * channels, 1)
    input_bias = np.where(kept[:, None], -0.02 * time[:, None] * channels, 0)
    bits = int(precision[1 : precision.index("a")])
    parameters = 7_700_000
    return Evaluation(
        name=f"emoji32-{precision}",
        target="executorch",
        target_title="ExecuTorch",
        precision=precision,
        labels=tuple(LABELS[index % len(LABELS)] for index in range(seeds)),
        images=images,
        strips=strips,
        strip_steps=strip_steps,
        timesteps=np.linspace(960, 0, steps).round(),
        snr_db={"quantized": before + 18 * (1 - time) ** 2, "corrected": before + gain * time + 18 * (1 - time) ** 2},
        mean_drift={"quantized": drift, "corrected": drift * left**3},
        std_ratio={"quantized": ratio, "corrected": 1 + (ratio - 1) * left**3},
        tables={
            "output_gain": output_gain,
            "output_bias": np.zeros((steps, 3)),
            "input_gain": np.ones((steps, 3)),
            "input_bias": input_bias,
        },
        kept_steps=kept,
        conversion_parity={
            "weight_codes_equal": True,
            "layers": 61,
            "activation_codes_compared": 8_123_456,
            "flip_rate": 0.00012,
            "worst_code_step": 1,
            "lockstep_output_error": 3.1e-7,
            "timesteps": (960.0, 480.0, 0.0),
            "output_max_abs": 2.1e-6,
            "declared_error": None,
            "declared_flip_rate": None,
            "free_running_error": None,
            "limits": {"worst_code_step": 1, "flip_rate": 1e-3, "lockstep_output_error": 1e-5},
        },
        quantization_error={"image_psnr_db": Interval(before, before - 0.5, before + 0.6)},
        correction_gain={
            "image_psnr_db": Interval(before + gain, before + gain - 0.5, before + gain + 0.5),
            "image_psnr_gain_db": Interval(gain, gain - 0.3, gain + 0.3),
            "seeds_improved": 0.92 if gain > 0 else 0.17,
        },
        sampler_parity=4.2e-7,
        artifact={
            "bytes": parameters * bits // 8 + 310_000,
            "ideal_bytes": parameters * bits // 8 + 60_000,
            "weight_bits_asked": bits,
            "weight_bits_achieved": bits + 0.31,
            "parameters": parameters,
            "planned_memory_bytes": 1_966_080,
            "delegates": 3,
            "undelegated": {"aten.embedding": 1, "aten.sin": 1, "aten.cos": 1},
            "operations": {"XnnpackBackend": 3, "aten.embedding": 1, "aten.sin": 1, "aten.cos": 1},
            "notes": [],
            "float_layers": ["conv_in", "conv_out"],
            "size_parts": {
                "weight codes": parameters * bits // 8,
                "scales": 60_000,
                "float biases": 90_000,
                "graph": 160_000,
            },
            "correction_bytes": 2_344,
            "step_time_ratio": 0.61,
            "step_time_note": "",
            "fp32_bytes": parameters * 4 + 190_000,
        },
        provenance={
            "model": "emoji32",
            "model sha256": "3f5a" * 16,
            "artifact sha256": ("9c1" + precision[1]) * 16,
            "sampler": f"DDIMScheduler, {steps} steps, eta 0",
            "calibration": "64 trajectories, seeds 0 to 63",
            "versions": "torch 2.8.0, executorch 0.7.0, diffusers 0.35.1",
        },
    )


def on_core_ml(evaluation: Evaluation) -> Evaluation:
    """The same bundle's Core ML part: run by an emulator, with float16 arithmetic, placed by the device."""
    parity = {**evaluation.conversion_parity, "flip_rate": 0.0, "declared_error": 1.7e-3, "declared_flip_rate": 0.009}
    parity["limits"] = {"lockstep_output_error": 2e-5, "output_max_abs": 3e-5, "declared_error": 4e-3}
    artifact = {
        **evaluation.artifact,
        "planned_memory_bytes": None,
        "delegates": None,
        "undelegated": {},
        "operations": {"conv": 51, "linear": 43, "silu": 30},
        "notes": ["iOS 18 and later.", "Which unit runs an operation is decided on the device."],
        "step_time_ratio": None,
        "step_time_note": "not measured: an emulator's time is never a phone's",
        "fp32_bytes": None,
    }
    return replace(evaluation, target="coreml", target_title="Core ML", conversion_parity=parity, artifact=artifact)
