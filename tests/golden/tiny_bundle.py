"""One tiny valid bundle of two parts, with files in place of networks that no runtime would load."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from recorded_cases import Case, correction_of, network
from safetensors.numpy import save

from correction import Correction, SamplingPlan, encode_correction, initial_noise, sample
from correction.plan import FloatArray

FORMAT = ("mobile-export-bundle", "3.1")
SEED, STREAM = 0, "simulation"  # of golden vectors
CASE = Case("ddim", 4, {"clip_sample": True}, corrected=True, guidance=2.5)
SHAPE = (CASE.channels, CASE.height, CASE.width)
UNET, PACKAGE = "executorch/unet.pte", "coreml/unet.mlpackage"
WEIGHTS = f"{PACKAGE}/Data/weights.bin"
# No networks: files that no runtime would load, and that every reader must have checked before one tries.
ARTIFACTS = {
    UNET: b"not a program".ljust(64, b"."),
    f"{PACKAGE}/Manifest.json": b'{"not": "a package"}\n',
    WEIGHTS: bytes(range(48)),
}
LATENTS = {"kind": "kl", "channels": 4, "image_channels": 3, "factor": 8, "scaling_factor": 0.18, "shift_factor": 0.0}
Files = dict[str, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest(name: str) -> str:
    """Of an artifact, by the rule of docs/bundle-format.md."""
    if name in ARTIFACTS:
        return sha256(ARTIFACTS[name])
    lines = [f"{sha256(ARTIFACTS[WEIGHTS])}  {WEIGHTS.removeprefix(name + '/')}\n"]
    return sha256("".join(lines).encode())


def golden(plan: SamplingPlan, correction: Correction) -> dict[str, FloatArray]:
    """As `mobile_export.golden` records it, of a class-conditional network with guidance."""
    given, null = network(plan, 0.9), network(plan, 0.5)
    noise = initial_noise(SEED, STREAM, [0], SHAPE)
    outputs: list[FloatArray] = []

    def guided(x: FloatArray, timestep: float, /) -> FloatArray:
        other = null(x, timestep)
        outputs.append(other + np.float32(CASE.guidance) * (given(x, timestep) - other))
        return outputs[-1]

    corrected = sample(plan, guided, noise, correction)
    recorded = np.stack(outputs)
    return {
        "noise": noise,
        "outputs": recorded,
        "sample_corrected": corrected,
        "sample_uncorrected": sample(plan, guided, noise),
        "class_labels": np.array([0], np.int64),
        "null.class_labels": np.array([2], np.int64),
    }


def bundle(plan: SamplingPlan) -> Files:
    """Every file of the valid bundle."""
    files = dict(ARTIFACTS)
    correction = correction_of(CASE, plan)
    for target, artifact in (("executorch", UNET), ("coreml", PACKAGE)):
        metadata = {"artifact_sha256": digest(artifact), "guidance_scale": CASE.guidance}
        files[f"{target}/correction.safetensors"] = encode_correction(plan, correction, metadata)
        files[f"{target}/golden.safetensors"] = save(golden(plan, correction))
    files["manifest.json"] = text(manifest(files))
    return files


def text(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def manifest(files: Files) -> dict[str, Any]:
    sizes = dict(zip(("channels", "height", "width"), SHAPE, strict=True))
    return {
        "format": FORMAT[0],
        "format_version": FORMAT[1],
        "name": "golden — tiny",
        "model": {
            "name": "golden",
            "source": "tests/golden",
            "kind": "UNet2DModel",
            "parameters": 123,
            "pipeline": "",
            "scheduler": "DDIMScheduler",
            "scheduler_config": {"beta_schedule": "linear", "beta_start": 1e-4, "trained_betas": None},
            "digest": "0" * 64,
            "classes": ["cat", "Füchsin 🦊"],
            "null_label": 2,
        },
        "sample": sizes,
        "image": {**sizes, "range": [-1, 1]},
        "latents": None,
        "text": None,
        "constants": None,
        "precision": "w8a8",
        "sampler": CASE.sampler,
        "steps": CASE.steps,
        "guidance": CASE.guidance,
        "guidance_calls": 2,
        "calibration": {"method": "tac", "samples": 1, "range_samples": 1, "seed": 0, "stream": "calibration"},
        "parts": {
            "executorch": part("executorch", UNET, "int64"),
            "coreml": part("coreml", PACKAGE, "int32"),
        },
        "versions": {"python": "3.11"},
        "files": {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()},
    }


def part(target: str, artifact: str, whole: str) -> dict[str, Any]:
    inputs = [("sample", [1, *SHAPE], "float32"), ("timestep", [1], "float32"), ("class_labels", [1], whole)]
    ports = [{"name": name, "shape": shape, "type": kind} for name, shape, kind in inputs]
    unet = {
        "artifact": artifact,
        "signature": {"inputs": ports, "output": {"name": "noise_pred", "shape": [1, *SHAPE], "type": "float32"}},
        "kind": "UNet2DModel",
        "parameters": 123,
        "precision": "w8a8",
        "recipe": {"precision": "w8a8", "format": "channel", "layers": {}},
        "stored_bits": 8.5,
        "refitted_layers": {},
        "weight_bits_asked": 8,
        "weight_bits_achieved": 8,
        "float_layers": [],
        "ideal_bytes": 123,
        "conversion_parity": {"flip_rate": 0.0, "limits": {"flip_rate": 0.001}},
        "description": {
            "total_bytes": 64,
            "size_parts": {"all": 64},
            "operations": {},
            "undelegated": {},
            "notes": [],
            "delegates": None,
            "planned_memory_bytes": None,
        },
    }
    return {
        "components": {"unet": unet},
        "correction": f"{target}/correction.safetensors",
        "golden": f"{target}/golden.safetensors",
        "kept_steps": [True, False, True, True],
    }
