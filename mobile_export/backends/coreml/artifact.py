"""CoreMLArtifact: a saved package, run by the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from correction.errors import CheckFailed
from mobile_export.backends.artifact import Artifact
from mobile_export.backends.coreml.divided import SimulatedNetwork
from mobile_export.coreml_simulator.errors import SimulatorError
from mobile_export.coreml_simulator.simulator import Mode
from mobile_export.models.component import TYPES, Signature


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """What the simulator refuses, as a failed check of the artifact at `path`."""
    try:
        yield
    except SimulatorError as error:
        raise CheckFailed(f"{path}: {error}") from error


class CoreMLArtifact(Artifact):
    """A package or a folder of chunks; a whole batch is one run.

    mode: "declared" rounds to float16 where the program does, "float32" nowhere. Raises CheckFailed for a
    damaged package, one that the simulator cannot run, and one that takes something else than `signature` says.
    """

    def __init__(self, path: Path, signature: Signature, mode: Mode = "declared") -> None:
        super().__init__(signature, str(path))
        self.path = path
        with reported(path):
            self.network = SimulatedNetwork(path, mode)
        types = {name: value.type for name, value in self.network.inputs.items()}
        shapes = {
            name: None if kind is None else (tuple(kind.shape), kind.element.carrier) for name, kind in types.items()
        }
        if shapes != {port.name: (port.shape, TYPES[port.type]) for port in signature.inputs}:
            found = ", ".join(f"{name} {kind}" for name, kind in types.items())
            wanted = ", ".join(str(port) for port in signature.inputs)
            raise CheckFailed(f"{path} takes {found}, but {wanted} was promised; export it again")

    def run(self, inputs: Mapping[str, Tensor], batch: int) -> Tensor:
        """Inputs of a batch get a leading axis in front of the program's own; shared ones are as they are."""
        given = {name: value[:, None] if len(value) > 1 else value for name, value in inputs.items()}
        with reported(self.path):
            output = self.network(given)[self.signature.output.name]
        return output[:, 0] if batch > 1 else output
