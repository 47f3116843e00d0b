"""ExecuTorchArtifact: a `.pte`, run by the ExecuTorch runtime."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from correction.errors import CheckFailed
from mobile_export.backends.artifact import Artifact
from mobile_export.models.component import Signature

METHOD = "forward"


class LoadedProgram:
    """The `forward` method of a `.pte`, from a file, which is then mapped and not copied into memory, or from bytes.

    Raises CheckFailed when the runtime refuses it.
    """

    def __init__(self, data: bytes | Path, source: str) -> None:
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


class ExecuTorchArtifact(Artifact):
    """A `.pte` of one of our components; it takes one sample a call."""

    def __init__(self, path: Path, signature: Signature) -> None:
        super().__init__(signature, str(path))
        self.program = LoadedProgram(path, str(path))
        wanted = [port.shape for port in signature.inputs]
        if self.program.input_shapes != wanted:
            raise CheckFailed(
                f"{path} takes inputs of shapes {_shapes(self.program.input_shapes)}, "
                f"but {_shapes(wanted)} were promised; export it again"
            )

    def run(self, inputs: Mapping[str, Tensor], batch: int) -> Tensor:
        ordered = [inputs[port.name] for port in self.signature.inputs]
        rows = ([value[k : k + 1] if len(value) > 1 else value for value in ordered] for k in range(batch))
        return torch.cat([self.program(*row)[0] for row in rows])


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
