"""Inspection: what a bundle, an artifact or a correction file holds, as named figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from correction import UsageError
from correction.file import CorrectionFile, read_correction
from mobile_export.backends import BACKENDS, get_backend
from mobile_export.backends.backend import Backend
from mobile_export.bundle import Bundle
from mobile_export.manifest import MANIFEST

MAX_GAIN_ROWS = 12
ON_DEVICE = "decided on the device"
KINDS = "give a bundle folder, a .pte, an .mlpackage or a correction.safetensors"


def inspect_path(path: Path) -> tuple[str, dict[str, Any]]:
    """(title, figures) of a bundle folder, an artifact or a correction file.

    Raises UsageError for another kind of path, CheckFailed where the content is damaged.
    """
    if not path.exists():
        raise UsageError(f"nothing at {str(path)!r}: {KINDS}")
    if path.is_file() and path.suffix == ".safetensors":
        return f"correction {path.name}", correction_figures(read_correction(path), path.stat().st_size)
    backend = None if (path / MANIFEST).is_file() else _backend_of(path)
    if backend is not None:
        return f"{backend.title} artifact {path.name}", artifact_figures(backend, path)
    if path.is_file():
        raise UsageError(f"cannot inspect {path.name!r}: {KINDS}")
    bundle = Bundle.open(path)
    parts = {target: part_figures(bundle, target) for target in bundle.targets}
    return f"bundle {bundle.name}", bundle_figures(bundle) | parts


def _backend_of(path: Path) -> Backend | None:
    """The backend whose artifacts are named like `path`; none is loaded for a path without suffix."""
    candidates = (get_backend(name) for name in BACKENDS) if path.suffix else ()
    return next((backend for backend in candidates if backend.suffix == path.suffix), None)


def artifact_figures(backend: Backend, path: Path) -> dict[str, Any]:
    """Sizes, placement and operations of an artifact, from itself alone."""
    found = backend.describe(path)
    return {
        "bytes": found.total_bytes,
        "where they go": dict(found.size_parts),
        **memory(found.planned_memory_bytes),
        **placement(found.delegates, found.undelegated),
        "operations": dict(found.operations),
        "notes": " ".join(found.notes),
    }


def memory(planned: int | None) -> dict[str, Any]:
    """The memory that was planned for activations, or who decides it."""
    if planned is None:
        return {"planned activation memory": ON_DEVICE}
    return {"planned activation memory (bytes, without the delegate's own)": planned}


def placement(delegates: int | None, undelegated: Mapping[str, int]) -> dict[str, Any]:
    """Where the network runs: its delegates and what is outside of them, or who decides it."""
    if delegates is None:
        return {"placement": ON_DEVICE}
    return {"delegates": delegates, "not delegated": dict(undelegated)}


def bundle_figures(bundle: Bundle) -> dict[str, Any]:
    """What all parts of an opened bundle share."""
    manifest = bundle.manifest
    sample, image = (
        " x ".join(str(manifest[w][k]) for k in ("channels", "height", "width")) for w in ("sample", "image")
    )
    text, latents = manifest.get("text"), manifest.get("latents")
    return {
        "model": "{name}, {kind}, {parameters:,} parameters".format(**manifest["model"]),
        "classes": manifest["model"]["classes"],
        "image": image,
        **({} if latents is None else {"latents": f"{sample}, {latents['kind']}, times {latents['scaling_factor']:g}"}),
        **({} if text is None else {"prompts": text["subjects"] or f"any, up to {text['max_length']} tokens"}),
        "precision": manifest["precision"],
        "sampler": f"{manifest['sampler']}, {manifest['steps']} steps, guidance {manifest['guidance']:g}",
        "calibration": f"{manifest['calibration']['method']}, {manifest['calibration']['samples']} trajectories",
        "targets": list(bundle.targets),
        **({"left out": " ".join(notes)} if (notes := manifest["model"].get("notes")) else {}),
    }


def part_figures(bundle: Bundle, target: str) -> dict[str, Any]:
    """Correction and components of one part of an opened bundle, its binding checked."""
    part = bundle.part(target)
    bundle.correction_file(target)  # refuses figures of a correction that belongs to another artifact
    correction = bundle.manifest["files"][part["correction"]]["bytes"]
    ideal = bundle.component(target)["ideal_bytes"]
    found = {name: component_figures(bundle, target, name) for name in bundle.components(target)}
    unet = found.pop("unet")
    return {
        **unet,
        "correction bytes": correction,
        "artifact + correction over ideal": round((bundle.artifact_bytes(target) + correction) / ideal, 4),
        "steps corrected": f"{sum(part['kept_steps'])} of {len(part['kept_steps'])}",
        **found,
    }


def component_figures(bundle: Bundle, target: str, name: str) -> dict[str, Any]:
    """Sizes, bits, placement and parity of one artifact of a bundle."""
    entry = bundle.component(target, name)
    sizes, recipe, size = entry["description"], entry["recipe"], bundle.artifact_bytes(target, name)
    signature = bundle.signature(target, name)
    return {
        "network": f"{entry['kind']}, {entry['parameters']:,} parameters, {entry['precision']}",
        "takes": ", ".join(str(port) for port in signature.inputs),
        "gives": str(signature.output),
        "artifact bytes": size,
        "over bits x parameters / 8": round(size / entry["ideal_bytes"], 4),
        "where they go": sizes["size_parts"],
        "weight bits asked": entry["weight_bits_asked"],
        "weight bits achieved": round(entry["weight_bits_achieved"], 3),
        "bits per weight with scales and palettes": round(entry["stored_bits"], 3),
        "weight format": recipe.get("format"),
        **({"activations": f"8 bits, {ranges} ranges"} if (ranges := recipe.get("activations")) else {}),
        "layers with a choice of their own": recipe.get("layers", {}),
        "layers whose shape asks for another format": entry["refitted_layers"],
        **rounding(entry.get("input_groups", {})),
        **memory(sizes["planned_memory_bytes"]),
        **placement(sizes["delegates"], sizes["undelegated"]),
        "operations": sizes["operations"],
        "not quantized": entry["float_layers"],
        **({"tables in float16": halves} if (halves := entry.get("half_embeddings")) else {}),
        "notes": " ".join(sizes["notes"]),
        "conversion parity": entry["conversion_parity"],
    }


def rounding(groups: Mapping[str, int]) -> dict[str, Any]:
    """Of layers whose errors make up for each other only within groups of inputs, which saves memory."""
    if not groups:
        return {}
    return {"layers rounded in groups of inputs": f"{len(groups)}, in up to {max(groups.values())} groups"}


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
