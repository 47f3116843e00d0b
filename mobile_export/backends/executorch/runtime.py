"""ExecuTorchDenoiser: a `.pte` as a denoiser, through the ExecuTorch runtime."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from correction.errors import CheckFailed, UsageError

METHOD = "forward"


class LoadedProgram:
    """The `forward` method of a `.pte`. Raises CheckFailed when the runtime refuses the file."""

    def __init__(self, data: bytes, source: str) -> None:
        import executorch.kernels.quantized  # noqa: F401  registers the quantized portable operators
        from executorch.runtime import Runtime, Verification

        try:
            with _native_stderr_muted():
                self._program = Runtime.get().load_program(data, verification=Verification.InternalConsistency)
                self._method = self._program.load_method(METHOD)
        except (RuntimeError, ValueError) as error:
            raise CheckFailed(f"{source} is not a loadable ExecuTorch program ({error}); export it again") from error
        self.source = source
        meta = self._method.metadata
        self.input_shapes = [tuple(meta.input_tensor_meta(i).sizes()) for i in range(meta.num_inputs())]

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """One run; outputs are contiguous copies that outlive the next run.

        Raises CheckFailed where the runtime gives up, for example at a label without an embedding.
        """
        try:
            outputs = self._method.execute(inputs)
        except RuntimeError as error:
            raise CheckFailed(f"{self.source} failed while running ({error}); are its inputs what it takes?") from error
        return [output.contiguous().clone() for output in outputs]


@contextlib.contextmanager
def _native_stderr_muted() -> Iterator[None]:
    """The runtime writes what it learns about the processor to file descriptor 2; errors come as exceptions."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


class ExecuTorchDenoiser:
    """(B, C, H, W) float32, timestep, class_labels=(B,) -> (B, C, H, W); the artifact takes one sample a call."""

    def __init__(self, path: Path) -> None:
        self.program = LoadedProgram(path.read_bytes(), str(path))
        self.conditioned = len(self.program.input_shapes) == 3

    def __call__(self, sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
        expected = self.program.input_shapes[0]
        if sample.shape[1:] != expected[1:]:
            raise UsageError(f"{self.program.source} takes samples of shape {expected[1:]}, got {sample.shape[1:]}")
        labels = self._labels(conditioning, len(sample))
        time = torch.full((1,), float(timestep))
        outputs = []
        for i in range(len(sample)):
            inputs = (torch.from_numpy(sample[i : i + 1]), time)
            label = () if labels is None else (torch.from_numpy(labels[i : i + 1]),)
            outputs.append(self.program(*inputs, *label)[0].numpy())
        return np.concatenate(outputs)

    def _labels(self, conditioning: Mapping[str, Any], batch: int) -> np.ndarray | None:
        unknown = set(conditioning) - {"class_labels"}
        if unknown or ("class_labels" in conditioning) != self.conditioned:
            wanted = "class_labels" if self.conditioned else "no conditioning"
            raise UsageError(f"{self.program.source} takes {wanted}, got {sorted(conditioning) or 'none'}")
        if not self.conditioned:
            return None
        labels = np.ascontiguousarray(conditioning["class_labels"], dtype=np.int64)
        if labels.shape != (batch,):
            raise UsageError(f"class_labels must have shape ({batch},), got {labels.shape}")
        return labels
