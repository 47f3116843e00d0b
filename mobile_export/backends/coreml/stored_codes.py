"""StoredCodes: what a saved package holds of the quantized model's integers, compared value by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mobile_export.backends.coreml.encoding import Affine, Encoding, encode
from mobile_export.backends.coreml.layer_sites import LayerSite, layer_sites
from mobile_export.coreml_simulator.program import Operation, Program
from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.table import LayerQuantization


@dataclass(frozen=True)
class StoredCodes:
    """equal, total: weight codes; wrong: names of what differs, as "layer.part"."""

    equal: int
    total: int
    wrong: tuple[str, ...]


def compare_codes(program: Program, layers: Mapping[str, LayerQuantization], ios: str) -> StoredCodes:
    """Codes, scales, palettes and activation grids of every layer. Raises CheckFailed where a layer is missing."""
    equal = total = 0
    wrong: list[str] = []
    for name, site in layer_sites(program, layers).items():
        layer = layers[name]
        value = site.codes.outputs[0].type
        rank = len(value.shape) if value is not None else 0
        stored, expected = _stored(program, site, ios), _expected(encode(name, layer.weight, rank, ios), ios)
        for part, array in expected.items():
            same = part in stored and stored[part].shape == array.shape
            matches = int(np.count_nonzero(stored[part] == array)) if same else 0
            if matches < array.size:
                wrong.append(f"{name}.{part}")
            if part == "codes":
                equal, total = equal + matches, total + array.size
        wrong.extend(f"{name}.{part}" for part in stored.keys() - expected.keys())
        for end, op, grid in (("input", site.quantize_in, layer.input), ("output", site.quantize_out, layer.output)):
            if grid is not None and (op is None or not _is_grid(program, op, grid)):
                wrong.append(f"{name}.{end}")
    return StoredCodes(equal, total, tuple(wrong))


def _expected(encoding: Encoding, ios: str) -> dict[str, np.ndarray]:
    if isinstance(encoding, Affine):
        scale = encoding.scale.reshape(-1) if ios == "ios17" else encoding.scale
        return {"codes": encoding.codes, "scale": scale}
    parts = {"codes": encoding.indices, "palette": encoding.palette}
    if encoding.output_scale is not None:
        parts["output_scale"] = encoding.output_scale
    return parts


def _stored(program: Program, site: LayerSite, ios: str) -> dict[str, np.ndarray]:
    op = site.codes
    parts: dict[str, np.ndarray] = {}
    for parameter, part in (
        ("data", "codes"),
        ("quantized_data", "codes"),
        ("indices", "codes"),
        ("scale", "scale"),
        ("lut", "palette"),
        ("offset", "offset"),
    ):
        if parameter in op.inputs:
            parts[part] = _array(program, op, parameter)
    if "zero_point" in op.inputs and _array(program, op, "zero_point").any():
        parts["offset"] = _array(program, op, "zero_point")
    if "palette" in parts and "shape" in op.inputs:  # iOS 16's form: indices packed into bytes, least bit first
        shape = _array(program, op, "shape").astype(int).tolist()
        bits = int(np.log2(parts["palette"].size))
        parts["codes"] = _unpacked(parts["codes"], bits, int(np.prod(shape))).reshape(shape)
        parts["palette"] = parts["palette"].reshape(1, -1)
    elif "palette" in parts:
        lut = parts["palette"]
        parts["palette"] = lut.reshape(lut.shape[0], -1)
    if site.scale is not None:
        parts["output_scale"] = _array(program, site.scale, "y").reshape(-1)
    return parts


def _array(program: Program, op: Operation, parameter: str) -> np.ndarray:
    value = program.constants[op.inputs[parameter][0]].value
    array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _unpacked(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    flags = np.unpackbits(packed.astype(np.uint8), bitorder="little")[: count * bits].reshape(count, bits)
    return (flags << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8)


def _is_grid(program: Program, op: Operation, grid: ActivationGrid) -> bool:
    scale = _array(program, op, "scale")
    zero_point = int(_array(program, op, "zero_point")) if "zero_point" in op.inputs else 0
    value = op.outputs[0].type
    if value is not None and value.element.carrier == torch.uint8:
        zero_point -= 128  # the same grid on codes of 0 to 255
    return scale.size == 1 and float(scale) == grid.scale and zero_point == grid.zero_point
