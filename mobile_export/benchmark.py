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
from mobile_export.models.diffusion_model import DiffusionModel

ROUNDS = 15


class _Plain(nn.Module):
    """The diffusers network with tuple output, lowered as it is: the float32 artifact to compare with."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        kwargs = {} if class_labels is None else {"class_labels": class_labels}
        return self.unet(sample, timestep, return_dict=False, **kwargs)[0]


def float_artifact(model: DiffusionModel) -> Path:
    """The float32 `.pte` of the model, from the cache where its digest is right, else lowered now."""
    version = importlib.metadata.version("executorch")
    key = hashlib.sha256(f"{model.digest} float32 executorch {version}".encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mobile-export"
    path, digest = folder / f"{key}.pte", folder / f"{key}.sha256"
    if path.is_file() and digest.is_file() and digest.read_text() == file_sha256(path):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{key}.{os.getpid()}.partial"
    partial.write_bytes(lower(_Plain(model.unet), model.example_inputs()).data)
    os.replace(partial, path)
    digest.write_text(file_sha256(path))
    return path


def step_time_ratio(artifact: Path, model: DiffusionModel) -> tuple[float, int]:
    """(time per step of `artifact` over the float32 artifact's, bytes of the latter).

    The two alternate; the smallest wall time of each over the rounds is taken. A ratio from a
    desktop says which is faster here, not how fast a phone is.
    """
    baseline = float_artifact(model)
    inputs = model.example_inputs()
    programs = [LoadedProgram(p.read_bytes(), str(p)) for p in (artifact, baseline)]
    best = [float("inf")] * 2
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for k, program in enumerate(programs):
                started = time.perf_counter()
                program(*inputs)
                best[k] = min(best[k], time.perf_counter() - started)
    return best[0] / best[1], baseline.stat().st_size
