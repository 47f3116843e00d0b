"""Package: an .mlpackage with an ML program, opened from disk without trusting it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mobile_export.coreml_simulator.blobs import BlobFile
from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError
from mobile_export.coreml_simulator.function import decode_function
from mobile_export.coreml_simulator.interface import Interface, read_interface
from mobile_export.coreml_simulator.package_files import PackageFiles, read_package_files
from mobile_export.coreml_simulator.program import Program
from mobile_export.coreml_simulator.tensor_type import TensorType

MAX_PROGRAM = 2**25  # bytes; in memory, protobuf messages can take 40 times as much
SPECIFICATION_VERSIONS = range(6, 11)  # iOS 15 to iOS 26
PROGRAM_VERSION = 1
MAX_FUNCTIONS = 100
MODEL_PATH = "@model_path/"  # begins the blobs' file names; it stands for the folder of the model


@dataclass(frozen=True)
class Metadata:
    """What the author wrote into the package; "" where nothing is."""

    author: str
    license: str
    version: str
    short_description: str
    user_defined: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Package:
    """path: the folder. digest: sha256 over all files but the manifest, see `PackageFiles.digest`. sizes: bytes of
    every file by relative path. specification_version: 6 (iOS 15) to 10 (iOS 26). function_names: sorted.
    interfaces: by the name of the function.
    """

    path: Path
    digest: str
    sizes: Mapping[str, int]
    specification_version: int
    metadata: Metadata
    function_names: tuple[str, ...]
    default_function: str
    interfaces: Mapping[str, Interface]
    _functions: Mapping[str, Any] = field(repr=False)
    _blobs: _Blobs = field(repr=False)

    @property
    def inputs(self) -> Mapping[str, TensorType]:
        """Of the default function, as the model description declares them."""
        return self.interfaces[self.default_function].inputs

    @property
    def outputs(self) -> Mapping[str, TensorType]:
        """Of the default function, as the model description declares them."""
        return self.interfaces[self.default_function].outputs

    def program(self, function: str | None = None) -> Program:
        """Decode `function`, by default the default one. Weights that functions share are decoded once.

        Raises:
            PackageError: there is no such function, the program contradicts itself, its description or its weights.
            UnsupportedError: it needs what the simulator lacks.
        """
        name = self.default_function if function is None else function
        if name not in self.interfaces:
            raise PackageError(f"{self.path.name} has the functions {', '.join(self.function_names)}, got {name!r}")
        where = f"{self.path.name}: function {name!r}"
        program = decode_function(name, self._functions[name], self._blobs.read, where)
        self.interfaces[name].check(program, where)
        return program


def read_package(path: Path) -> Package:
    """Open the .mlpackage folder `path`; the functions are decoded by `Package.program`.

    Everything is bounded before memory is taken for it: the number and sizes of files, operations and elements.

    Raises:
        PackageError: the package is damaged, or it reaches outside of its folder.
        UnsupportedError: it is not an ML program of static shapes, or of a version that the simulator does not know.
    """
    files = read_package_files(path)
    digest = files.digest()
    model = _parse(files)
    where = path.name
    if model.WhichOneof("Type") != "mlProgram":
        raise UnsupportedError(f"{where}: only ML programs are supported, this is of type {model.WhichOneof('Type')}")
    if model.specificationVersion not in SPECIFICATION_VERSIONS or model.mlProgram.version != PROGRAM_VERSION:
        raise UnsupportedError(
            f"{where}: only specification versions 6 to 10 with program version {PROGRAM_VERSION} are known, "
            f"got {model.specificationVersion} with {model.mlProgram.version}"
        )
    interfaces = _interfaces(model, where)
    default = model.description.defaultFunctionName or "main"
    if default not in interfaces:
        raise PackageError(f"{where}: its default function {default!r} is none of {', '.join(interfaces)}")
    return Package(
        path=path,
        digest=digest,
        sizes=files.sizes,
        specification_version=model.specificationVersion,
        metadata=_metadata(model.description.metadata),
        function_names=tuple(interfaces),
        default_function=default,
        interfaces=interfaces,
        _functions={name: model.mlProgram.functions[name] for name in interfaces},
        _blobs=_Blobs(files),
    )


def _parse(files: PackageFiles) -> Any:
    # Slow to import and talkative, so not before a package is read.
    from coremltools.proto.Model_pb2 import Model
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if files.sizes[files.model] > MAX_PROGRAM:
        raise PackageError(f"{files.model} may have {MAX_PROGRAM} bytes, it has {files.sizes[files.model]}")
    model = Model()
    try:
        model.ParseFromString((files.root / files.model).read_bytes())
    except DecodeError as error:
        raise PackageError(f"{files.model} of {files.root.name} is not a Core ML model: {error}") from error
    return model


def _interfaces(model: Any, where: str) -> dict[str, Interface]:
    """By function, sorted. A model of one function describes it at the top, one of several in a list."""
    functions = sorted(model.mlProgram.functions)
    if not 1 <= len(functions) <= MAX_FUNCTIONS:
        raise PackageError(f"{where}: must have 1 to {MAX_FUNCTIONS} functions, got {len(functions)}")
    if not all(name.isprintable() for name in functions):
        raise PackageError(f"{where}: names of functions must be printable, got {functions}")
    descriptions = {message.name: message for message in model.description.functions} or {"main": model.description}
    if sorted(descriptions) != functions or len(descriptions) != max(len(model.description.functions), 1):
        raise PackageError(f"{where}: describes the functions {sorted(descriptions)}, it has {functions}")
    return {name: read_interface(descriptions[name], f"{where}: function {name!r}") for name in functions}


def _metadata(message: Any) -> Metadata:
    return Metadata(
        author=message.author,
        license=message.license,
        version=message.versionString,
        short_description=message.shortDescription,
        user_defined=dict(sorted(message.userDefined.items())),
    )


class _Blobs:
    """The weight files that the manifest lists, each opened when the program first refers to it."""

    def __init__(self, files: PackageFiles) -> None:
        self.root, self.folder = files.root, files.model.rpartition("/")[0]
        self.listed = files.listed - {files.model}
        self.opened: dict[str, BlobFile] = {}

    def read(self, file_name: str, offset: int, type: TensorType) -> Tensor:
        path = f"{self.folder}/{file_name.removeprefix(MODEL_PATH)}"
        if not file_name.startswith(MODEL_PATH) or path not in self.listed:
            raise PackageError(f"weights lie in {', '.join(sorted(self.listed)) or 'no file'}, got {file_name!r}")
        if path not in self.opened:
            self.opened[path] = BlobFile(self.root / path)
        return self.opened[path].tensor(offset, type)
