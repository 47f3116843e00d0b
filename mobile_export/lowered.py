"""Lowered: the checked artifact of one component for one target, in the export's work folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mobile_export.backends.backend import Backend, BackendOptions
from mobile_export.bundle import path_digest
from mobile_export.progress import Progress
from mobile_export.quantize.half_embedding import large_embeddings
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantized_component import QuantizedComponent


def lower_component(
    backend: Backend,
    quantized: QuantizedComponent,
    options: BackendOptions,
    folder: Path,
    record: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Write the artifact into `folder` and return its entry of the manifest (docs/bundle-format.md).

    One that an interrupted export left, noted in `record`, is taken again if its digest fits. Raises CheckFailed when
    the artifact does not compute what the quantized model computes.
    """
    component, table = quantized.component, quantized.table
    key, name = _key(backend, quantized, options), component.name
    entry = kept(record, key, [shipped(backend, folder, name)])
    if entry is not None:
        return entry
    record.unlink(missing_ok=True)
    path = folder / f"{name}{backend.suffix}"
    for old in (path, shipped(backend, folder, name)):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    exported = backend.export(component, table, path, progress)
    progress.stage(f"conversion parity: {name} for {backend.title} against the quantized PyTorch model, in lock-step")
    probes = list(quantized.probes)
    parity = backend.check_parity(component, table, path, exported, probes)
    del exported
    artifact = backend.finish(component, path, probes)
    bits = table.precision.weight_bits
    entry = {
        "artifact": f"{backend.name}/{artifact.name}",
        "signature": asdict(backend.signature(component)),
        "kind": type(component.network).__name__,
        "parameters": component.parameters,
        "precision": table.precision.name,
        "recipe": _carried_out(table.recipe, backend),
        "weight_bits_asked": bits,
        "weight_bits_achieved": table.weight_bits_achieved(component.network),
        "stored_bits": table.stored_bits(component.network),
        "ideal_bytes": bits * component.parameters // 8,
        "float_layers": table.float_layers(component.network),
        "refitted_layers": {n: f"{asked.name} -> {taken.name}" for n, (asked, taken) in table.refitted().items()},
        "half_embeddings": large_embeddings(component.network),
        "input_groups": {name: groups for name, groups in table.input_groups.items() if groups > 1},
        "conversion_parity": asdict(parity),
        "description": asdict(backend.describe(artifact)),
    }
    keep(record, key, [artifact], entry)
    return entry


def _carried_out(recipe: Recipe, backend: Backend) -> dict[str, Any]:
    """What the recipe became: a backend may not have the ranges it asks for."""
    taken = recipe.activations if recipe.activations in backend.activations else backend.activations[0]
    return replace(recipe, activations=taken).as_dict()


def _key(backend: Backend, quantized: QuantizedComponent, options: BackendOptions) -> str:
    """Digest of everything that the artifact and its parity depend on."""
    component = quantized.component
    shapes = [str(list(tensor.shape)) for tensor in component.inputs.values()]
    told = (options.ios, options.compute, f"{options.chunk_megabytes:g}")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in backend.libraries]
    parts = (component.name, component.digest, quantized.table.digest(), quantized.origin)
    return hashlib.sha256("\n".join((*parts, *shapes, *told, *versions)).encode()).hexdigest()


def shipped(backend: Backend, folder: Path, name: str) -> Path:
    """Where the finished artifact of a component is: it may have been divided."""
    divided = folder / f"{name}{backend.divided}"
    return divided if backend.divided and divided.exists() else folder / f"{name}{backend.suffix}"


def kept(record: Path, key: str, files: list[Path]) -> Any:
    """What an interrupted run noted, if it did so for this key and for files that are still the same; else None."""
    if record.is_file() and all(path.exists() for path in files):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # killed while it was written: made again
            noted = json.loads(record.read_text())
            if (noted["key"], noted["sha256"]) == (key, [path_digest(path) for path in files]):
                return noted["value"]
    return None


def keep(record: Path, key: str, files: list[Path], value: Any) -> None:
    """Note `value` for `kept`."""
    digests = [path_digest(path) for path in files]
    record.write_text(json.dumps({"key": key, "sha256": digests, "value": value}))
