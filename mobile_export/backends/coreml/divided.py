"""A network as one package, or as a folder of chunks that run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from correction.errors import CheckFailed
from mobile_export.backends.coreml.chunks import ChunkedProgram, chunk_interfaces, split_package
from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.program import Value
from mobile_export.coreml_simulator.simulator import Mode, Simulator

CHUNKS = ".chunks"
_SUFFIX = ".mlpackage"


def packages(path: Path) -> list[Path]:
    """The package at `path`, or the chunks in that folder in the order in which they run.

    Raises CheckFailed for a folder that is neither.
    """
    if path.suffix == _SUFFIX:
        return [path]
    found = {each.stem.rpartition("-")[2]: each for each in path.glob(f"*{_SUFFIX}")}
    numbers = [str(k + 1) for k in range(len(found))]
    if not found or set(found) != set(numbers):
        raise CheckFailed(f"{path} must hold packages numbered from 1, it has {', '.join(sorted(found)) or 'none'}")
    return [found[number] for number in numbers]


def divide(path: Path, limit_bytes: int) -> Path:
    """Where the network is after dividing the package at `path`, if its weights are more than `limit_bytes`.

    That is `path` itself, or a folder beside it that has its name with CHUNKS. Raises UsageError where it cannot be
    divided so.
    """
    chunks = split_package(path, limit_bytes)
    if chunks == [path]:
        return path
    folder = path.with_suffix(CHUNKS)
    folder.mkdir()
    for chunk in chunks:
        chunk.rename(folder / chunk.name)
    return folder


class SimulatedNetwork:
    """The packages at `path`, called as one Simulator is: inputs of the whole by name -> its outputs by name.

    inputs: the values that the whole takes. Raises SimulatorError for what the simulator refuses.
    """

    def __init__(self, path: Path, mode: Mode) -> None:
        programs = [read_package(each).program() for each in packages(path)]
        simulators = [Simulator(program, mode) for program in programs]
        self.run: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = simulators[0]
        values = {value.name: value for program in programs for value in program.inputs}
        given = list(values)
        if len(simulators) > 1:
            interfaces = chunk_interfaces(packages(path))
            self.run = ChunkedProgram(simulators, interfaces)
            given = list(dict.fromkeys(name for interface in interfaces for name in interface.given))
        self.inputs: dict[str, Value] = {name: values[name] for name in given}

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        return dict(self.run(inputs))
