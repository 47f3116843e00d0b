"""Time per step of an artifact as a ratio to the float32 artifact's, alternating in one run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mobile_export.backends.executorch.lowering import lower
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.bundle import file_sha256
from mobile_export.models.component import Component, call_network

ROUNDS = 15


class _Plain(nn.Module):
    """The network as it is, its inputs in their order: the float32 artifact to compare with."""

    def __init__(self, component: Component) -> None:
        super().__init__()
        self.network, self.names = component.network, tuple(component.inputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        return call_network(self.network, dict(zip(self.names, inputs, strict=True)))


def float_artifact(component: Component) -> Path:
    """The float32 `.pte` of a component, from the cache if it is right, or lowered now."""
    version = importlib.metadata.version("executorch")
    shapes = [list(tensor.shape) for tensor in component.inputs.values()]
    key = hashlib.sha256(
        f"{component.digest} {component.name} {shapes} float32 executorch {version}".encode()
    ).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mobile-export"
    path, digest = folder / f"{key}.pte", folder / f"{key}.sha256"
    if path.is_file() and digest.is_file() and digest.read_text() == file_sha256(path):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{key}.{os.getpid()}.partial"
    partial.write_bytes(lower(_Plain(component), tuple(component.inputs.values())).data)
    os.replace(partial, path)
    digest.write_text(file_sha256(path))
    return path


def step_time_ratio(artifact: Path, component: Component) -> tuple[float, int]:
    """(time per call of `artifact` over the float32 artifact's, bytes of the latter).

    The two alternate; the smallest wall time of each over the rounds is taken. A ratio from a
    desktop says which is faster here, not how fast a phone is.
    """
    baseline = float_artifact(component)
    inputs = tuple(component.inputs.values())
    programs = [LoadedProgram(p.read_bytes(), str(p)) for p in (artifact, baseline)]
    best = [float("inf")] * 2
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for k, program in enumerate(programs):
                started = time.perf_counter()
                program(*inputs)
                best[k] = min(best[k], time.perf_counter() - started)
    return best[0] / best[1], baseline.stat().st_size
