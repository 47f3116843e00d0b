"""The ExecuTorch runtime for aarch64 on an emulated processor: a `.pte` computes what it computes on a phone.

qemu executes each instruction as the processor defines it, so the numbers are a phone's; the time it takes is not.
toolchain.sh puts everything needed into .tools/arm64.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from correction.errors import CheckFailed
from mobile_export.backends.artifact import Artifact
from mobile_export.models.component import Signature

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("TOOLS", ROOT / ".tools")) / "arm64"


@dataclass(frozen=True)
class Tier:
    """A kind of processor, by what XNNPACK multiplies int8 with; cpu: qemu's name of one of this kind."""

    name: str
    cpu: str
    instruction: str


TIERS = (
    Tier("no dot product", "cortex-a53", "smlal"),
    Tier("dot product", "cortex-a76", "sdot"),
    Tier("int8 matrix product", "cortex-a710", "smmla"),
)


class EmulatedProgram:
    """A `.pte` in an emulated process (runner.cpp). Close it to end the process; a context manager does.

    Raises CheckFailed when the runtime refuses the file or gives up.
    """

    def __init__(self, path: Path, tier: Tier, log: Path | None = None) -> None:
        """log: a file for the instructions that are executed, each once."""
        self.source = f"{path} on {tier.cpu}"
        qemu = [str(TOOLS / "qemu-aarch64"), "-cpu", tier.cpu, "-L", str(TOOLS / "sysroot")]
        logged = [] if log is None else ["-d", "in_asm", "-D", str(log)]
        command = [*qemu, *logged, "-E", f"LD_LIBRARY_PATH={TOOLS / 'lib'}", str(TOOLS / "runner"), str(path)]
        pipe = subprocess.PIPE
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors)
        # Both are there, since both were asked for; the type does not know.
        self._requests, self._answers = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        words = self._answers.readline().decode().split()
        if "outputs" not in words:
            self._give_up("could not be loaded")
        at = words.index("outputs")
        self.input_bytes = [int(word) for word in words[1:at]]
        self.output_bytes = [int(word) for word in words[at + 1 :]]

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """One run: every output as flat float32."""
        given = [value.tobytes() for value in inputs]
        if [len(value) for value in given] != self.input_bytes:
            raise CheckFailed(f"{self.source} takes inputs of {self.input_bytes} bytes, got {[len(v) for v in given]}")
        try:
            self._requests.write(b"".join(given))
            self._requests.flush()
        except BrokenPipeError:
            self._give_up("failed")
        outputs = [self._answers.read(size) for size in self.output_bytes]
        if [len(output) for output in outputs] != self.output_bytes:
            self._give_up("failed while running")
        return [np.frombuffer(output, "<f4") for output in outputs]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> EmulatedProgram:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _give_up(self, what: str) -> None:
        self._process.communicate()
        with self._errors as errors:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").splitlines()
        reasons = [line.removeprefix("runner: ") for line in lines if line.startswith("runner: ")]
        raise CheckFailed(f"{self.source} {what}: {reasons[-1] if reasons else self._process.returncode}")


class EmulatedArtifact(Artifact):
    """A `.pte` of one of our components as an artifact like any other; it takes one sample a call."""

    def __init__(self, program: EmulatedProgram, signature: Signature) -> None:
        super().__init__(signature, program.source)
        self.program = program

    def run(self, inputs: Mapping[str, Tensor], batch: int) -> Tensor:
        ordered = [inputs[port.name] for port in self.signature.inputs]
        shape = self.signature.output.shape[1:]
        rows = [self._one([value[min(k, len(value) - 1)] for value in ordered]) for k in range(batch)]
        return torch.from_numpy(np.stack(rows).reshape(batch, *shape))

    def _one(self, row: Sequence[Tensor]) -> np.ndarray:
        return self.program(*(value.numpy() for value in row))[0]
