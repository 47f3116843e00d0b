"""Inspection: what a bundle, an artifact or a correction file holds, as named figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from correction import UsageError
from correction.file import CorrectionFile, read_correction
from mobile_export.bundle import Bundle

MAX_GAIN_ROWS = 12


def inspect_path(path: Path) -> tuple[str, dict[str, Any]]:
    """(title, figures) of a bundle folder, a `.pte` or a correction file.

    Raises UsageError for another kind of path, CheckFailed where the content is damaged.
    """
    if path.is_dir():
        bundle = Bundle.open(path)
        return f"bundle {bundle.name}", bundle_figures(bundle)
    if not path.is_file():
        raise UsageError(f"nothing at {str(path)!r}: give a bundle folder, a .pte or a correction.safetensors")
    if path.suffix == ".pte":
        from mobile_export.backends import get_backend

        found = get_backend("executorch").describe(path)
        return f"ExecuTorch program {path.name}", {
            "bytes": found.total_bytes,
            "where they go": dict(found.size_parts),
            "planned activation memory (bytes, without the delegate's own)": found.planned_memory_bytes,
            "delegates": found.delegates,
            "not delegated": dict(found.undelegated),
        }
    if path.suffix == ".safetensors":
        return f"correction {path.name}", correction_figures(read_correction(path), path.stat().st_size)
    raise UsageError(f"cannot inspect {path.name!r}: give a bundle folder, a .pte or a correction.safetensors")


def bundle_figures(bundle: Bundle) -> dict[str, Any]:
    """Sizes, bits, delegation, parity and calibration of an opened bundle, its bindings checked."""
    manifest = bundle.manifest
    figures: dict[str, Any] = {
        "model": "{name}, {kind}, {parameters:,} parameters".format(**manifest["model"]),
        "classes": manifest["model"]["classes"],
        "precision": manifest["precision"],
        "sampler": f"{manifest['sampler']}, {manifest['steps']} steps, guidance {manifest['guidance']:g}",
        "calibration": f"{manifest['calibration']['method']}, {manifest['calibration']['samples']} trajectories; "
        f"{sum(manifest['calibration']['kept_steps'])} of {manifest['steps']} steps corrected",
    }
    for name in bundle.backends:
        part = bundle.part(name)
        bundle.correction_file(name)  # refuses figures of a correction that belongs to another artifact
        sizes, parity = part["description"], part["conversion_parity"]
        artifact, correction = (manifest["files"][part[key]]["bytes"] for key in ("unet", "correction"))
        figures[name] = {
            "artifact bytes": artifact,
            "over bits x parameters / 8": round(artifact / part["ideal_bytes"], 4),
            "where they go": sizes["size_parts"],
            "weight bits asked": part["weight_bits_asked"],
            "weight bits achieved": round(part["weight_bits_achieved"], 3),
            "correction bytes": correction,
            "artifact + correction over ideal": round((artifact + correction) / part["ideal_bytes"], 4),
            "planned activation memory (bytes, without the delegate's own)": sizes["planned_memory_bytes"],
            "delegates": sizes["delegates"],
            "not delegated": sizes["undelegated"],
            "not quantized": part["float_layers"],
            "conversion parity": parity,
        }
    return figures


def correction_figures(file: CorrectionFile, size: int) -> dict[str, Any]:
    """Plan, provenance and a digest of the tables: a row for each of up to 12 steps, mean over channels."""
    correction, plan = file.correction, file.plan
    rows = {}
    for i in sorted(set(np.linspace(0, plan.steps - 1, min(plan.steps, MAX_GAIN_ROWS)).round().astype(int).tolist())):
        rows[f"step {i}, t = {plan.timestep[i]:g}"] = (
            f"x * {correction.input_gain[i].mean():.4f} {correction.input_bias[i].mean():+.4f},  "
            f"m * {correction.output_gain[i].mean():.4f} {correction.output_bias[i].mean():+.4f}"
        )
    return {
        "bytes": size,
        "scheduler": f"{plan.scheduler}, {plan.steps} steps, {plan.prediction_type}",
        "channels": correction.channels,
        "solved for artifact": file.artifact_sha256,
        "is the identity": correction.is_identity,
        "metadata": {k: v for k, v in sorted(file.metadata.items()) if k != "artifact_sha256"},
        "corrections (mean over channels)": rows,
    }
