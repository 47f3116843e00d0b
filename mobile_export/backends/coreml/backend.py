"""CoreMLBackend: `.mlpackage` artifacts, run on this machine by the simulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from correction.errors import CheckFailed, UsageError
from mobile_export.backends.backend import BackendOptions, Description, Parity, Probe
from mobile_export.backends.coreml.apple import AppleRuntime, load_predict
from mobile_export.backends.coreml.artifact import CoreMLArtifact, reported
from mobile_export.backends.coreml.conversion import SPECIFICATIONS, convert
from mobile_export.backends.coreml.divided import CHUNKS, divide, packages
from mobile_export.backends.coreml.encoding import require_ios17
from mobile_export.backends.coreml.network import Interface, ane_network, plain_network
from mobile_export.backends.coreml.package import save_package
from mobile_export.backends.coreml.parity import Case, check_package
from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.program import Program
from mobile_export.coreml_simulator.ranges import small_constants
from mobile_export.models.component import Component, Port, Signature
from mobile_export.progress import Progress
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import LayerQuantization, QuantizationTable

PREFIX = "com.github.mobile-export"  # of the keys that are ours in a package's metadata
PLACEMENT = "Which unit runs an operation, memory and speed are decided by Core ML on the device."


class CoreMLBackend:
    """See Backend. options.ios chooses the stored forms, options.compute the layout."""

    name = "coreml"
    title = "Core ML"
    suffix = ".mlpackage"
    divided: str | None = CHUNKS
    libraries: tuple[str, ...] = ("coremltools",)
    batch = 16
    activations: tuple[str, ...] = ("static",)

    def __init__(self, options: BackendOptions | None = None) -> None:
        self.options = options or BackendOptions()

    def require_supported(self, recipe: Recipe) -> None:
        """Everything that a recipe can say has a form on iOS 18."""
        if self.options.ios == "ios17":
            for name, choice in recipe.choices():
                if choice.bits is not None and choice.format is not None:
                    require_ios17(name, choice.bits, choice.format)

    def signature(self, component: Component) -> Signature:
        """Core ML has no 64-bit integers."""
        given = {n: t.int() if t.dtype == torch.int64 else t for n, t in component.inputs.items()}
        return Signature(tuple(Port.of(n, t) for n, t in given.items()), component.result)

    def export(self, component: Component, table: QuantizationTable, path: Path, progress: Progress) -> None:
        options = replace(self.options, compute=layout_of(component, self.options))
        system = f"{table.precision.name}, {options.ios}, {options.compute}"
        progress.stage(f"convert {component.name} to Core ML ({system})")
        table = float_outputs(table)
        network = converted_form(component.network, table.layers, options)
        package = convert(network, interface_of(component), table.layers, self.options.ios)
        progress.advance(1, 2)
        save_package(package, path, package_metadata(component, table, options))
        progress.advance(2, 2)

    def check_parity(
        self, component: Component, table: QuantizationTable, path: Path, exported: None, probes: list[Probe]
    ) -> Parity:
        table, signature = float_outputs(table), self.signature(component)
        cases = [Case(probe.tensors(signature.inputs), probe.timestep) for probe in probes]
        quantized = quantized_model(component.network, table)
        return check_package(path, quantized, table.layers, cases, self.options.ios)

    def finish(self, component: Component, path: Path, probes: list[Probe]) -> Path:
        """Chunks where there are too many weights for one package; they compute the same, bit for bit."""
        signature = self.signature(component)
        whole = CoreMLArtifact(path, signature)
        shipped = divide(path, int(self.options.chunk_megabytes * 1e6))
        if shipped != path:
            inputs = probes[0].tensors(signature.inputs)
            expected, got = (each.run(inputs, 1) for each in (whole, CoreMLArtifact(shipped, signature)))
            if not torch.equal(expected, got):
                raise CheckFailed(f"{shipped} computes something else than the package it was divided from")
        return shipped

    def load(self, path: Path, signature: Signature) -> CoreMLArtifact:
        return CoreMLArtifact(path, signature)

    def describe(self, path: Path) -> Description:
        with reported(path):
            found = [read_package(each) for each in packages(path)]
            programs = [package.program() for package in found]
        sizes = [(name, size) for package in found for name, size in package.sizes.items()]
        weights = sum(size for name, size in sizes if name.endswith(".bin"))
        graph = sum(size for name, size in sizes if name.endswith(".mlmodel"))
        total = sum(size for _, size in sizes)
        notes = [f"{_system(found[0].specification_version)} and later. {PLACEMENT}", *_small(programs)]
        if found[0].metadata.user_defined.get(f"{PREFIX}.compute") == "ane":
            notes.append("Laid out for the Neural Engine.")
        if len(found) > 1:
            notes.append(f"Divided into {len(found)} packages that run one after the other.")
        return Description(
            total_bytes=total,
            planned_memory_bytes=None,
            delegates=None,
            undelegated={},
            size_parts={"weights": weights, "program": graph, "list of files": total - weights - graph},
            operations=dict(sorted(Counter(op.type for program in programs for op in program.operations).items())),
            notes=tuple(notes),
        )

    def native(self, path: Path, signature: Signature) -> AppleRuntime | None:
        """On Core ML itself, on macOS."""
        predict = load_predict(path)
        return None if predict is None else AppleRuntime(predict, signature)

    def step_time(self, path: Path, component: Component) -> None:
        """Nothing: a simulator's time is never a phone's."""
        return None


def float_outputs(table: QuantizationTable) -> QuantizationTable:
    """The table without the grids at the layers' outputs.

    Integer kernels need them; in a Core ML program norms, activations and additions take float16, so that an
    8-bit grid between a layer and them would cost accuracy and save nothing.
    """
    return replace(table, layers={name: replace(layer, output=None) for name, layer in table.layers.items()})


def layout_of(component: Component, options: BackendOptions) -> str:
    """ "ane" or "all". A UNet gets the layout that was asked for, or is refused by name; what runs once an image, such
    as a text encoder, gets the layout of the Neural Engine only where its network has one."""
    if options.compute == "ane" and component.name != "unet":
        from mobile_export.backends.coreml.ane import NETWORKS

        return "ane" if isinstance(component.network, NETWORKS) else "all"
    return options.compute


def converted_form(network: nn.Module, layers: Mapping[str, LayerQuantization], options: BackendOptions) -> nn.Module:
    """The network in the layout and with the operations that the options ask for, its layers PlainLayers."""
    if options.compute == "ane":
        return ane_network(network, layers)
    return plain_network(network, layers, options.ios)


def interface_of(component: Component) -> Interface:
    """The package's inputs: float32, or int32 for whole numbers."""
    inputs = {n: t.int() if t.dtype == torch.int64 else t for n, t in component.inputs.items()}
    return Interface(inputs, component.output)


def package_metadata(component: Component, table: QuantizationTable, options: BackendOptions) -> dict[str, str]:
    """What the package says of itself. A model's own licence is not known here, so none is claimed for it."""
    kind = type(component.network).__name__
    return {
        "author": "mobile-export",
        "license": "The licence of the model that this package was made from applies.",
        "version": component.digest[:12],
        "description": f"{component.model}, {component.name}, {kind}, {table.precision.name}",
        f"{PREFIX}.model": component.model,
        f"{PREFIX}.model_sha256": component.digest,
        f"{PREFIX}.component": component.name,
        f"{PREFIX}.precision": table.precision.name,
        f"{PREFIX}.compute": options.compute,
    }


def _small(programs: Sequence[Program]) -> tuple[str, ...]:
    """A note where constants are below the normal range of float16."""
    small = [constant for program in programs for constant in small_constants(program)]
    if not small:
        return ()
    return (f"{len(small)} float16 constants are subnormal, for example {small[0]}: some engines take zero for them.",)


def _system(specification: int) -> str:
    names = {version: name.replace("ios", "iOS ") for name, version in SPECIFICATIONS.items()}
    if specification not in names:
        raise UsageError(f"specification version {specification} is none of ours: {sorted(names)}")
    return names[specification]
