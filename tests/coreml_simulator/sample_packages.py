"""Small .mlpackage folders, written by coremltools, and the arrays that went into them."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_export.coreml_simulator.packing import pack

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"

Arrays = dict[str, NDArray[Any]]


def elements(path: Path) -> Arrays:
    """Constants of every element type, as iOS 18 stores them. Those of 10 elements and more are blobs."""
    ct, mb, types = _builder()
    random = np.random.default_rng(0)
    arrays: Arrays = {}

    def put(name: str, element: str, values: NDArray[Any]) -> NDArray[Any]:
        dtype = types.nptype_from_builtin(types.string_to_builtin(element))
        arrays[name] = values
        return values.astype(dtype)

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 7), dtype=types.fp32)], opset_version=ct.target.iOS18)
    def program(x: Any) -> Any:
        for bits in (1, 2, 3, 4, 6, 8):
            name = f"palette{bits}"
            indices = put(f"{name}.indices", f"uint{bits}", random.integers(0, 2**bits, (1, 3, 7)))
            lut = put(f"{name}.lut", "fp32", random.normal(size=(1, 1, 1, 2**bits, 1)).astype(np.float32))
            x = mb.add(x=x, y=mb.constexpr_lut_to_dense(indices=indices, lut=lut, name=name))
        for element, low, high in (("int4", -8, 8), ("uint4", 0, 16), ("int8", -128, 128), ("uint8", 0, 256)):
            name = f"scaled_{element}"
            data = put(f"{name}.data", element, random.integers(low, high, (1, 3, 7)))
            offset = put(f"{name}.offset", element, random.integers(low, high, (1, 3, 1)))
            scale = put(f"{name}.scale", "fp32", random.normal(size=(1, 3, 1)).astype(np.float32))
            dense = mb.constexpr_blockwise_shift_scale(data=data, offset=offset, scale=scale, name=name)
            x = mb.add(x=x, y=dense)
        for element, count in (("int16", 12), ("uint16", 12), ("int32", 12), ("int16", 9), ("uint16", 9)):
            indices = put(f"{element}_{count}", element, random.integers(0, 7, count))
            x = mb.gather(x=x, indices=mb.const(val=indices, name=f"{element}_{count}"), axis=2)
        half = put("half", "fp16", random.normal(size=(3, 9)).astype(np.float16))
        half = mb.cast(x=mb.const(val=half, name="half"), dtype="fp32")
        flags = mb.const(val=put("flags", "bool", random.integers(0, 2, 9).astype(bool)), name="flags")
        weight = mb.const(val=put("weight", "fp32", random.normal(size=(2, 3, 1)).astype(np.float32)), name="weight")
        x = mb.concat(values=[mb.select(cond=flags, a=x, b=half), x], axis=2)
        return mb.conv(x=x, weight=weight, pad_type="valid", name="y")

    _save(program, ct.target.iOS18, path)
    return arrays


def palettes(path: Path) -> Arrays:
    """The weights that iOS 16 has; they are attributes of their operations, and palette indices are packed bytes."""
    ct, mb, types = _builder()
    random = np.random.default_rng(1)
    arrays: Arrays = {}

    @mb.program(input_specs=[mb.TensorSpec(shape=(3, 7), dtype=types.fp32)], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        for bits in (1, 2, 4, 6, 8):
            name = f"palette{bits}"
            indices = pack(random.integers(0, 2**bits, 21).astype(np.uint8), bits)
            lut = random.normal(size=2**bits).astype(np.float32)
            arrays[f"{name}.indices"], arrays[f"{name}.lut"] = indices, lut
            arrays[f"{name}.shape"] = np.array([3, 7], np.uint32)
            dense = mb.constexpr_lut_to_dense(indices=indices, lut=lut, shape=np.uint32([3, 7]), name=name)
            x = mb.add(x=x, y=dense)
        arrays["affine.quantized_data"] = data = random.integers(-128, 128, (3, 7)).astype(np.int8)
        arrays["affine.zero_point"] = zero_point = np.array([1, -2, 3], np.int8)
        arrays["affine.scale"] = scale = random.normal(size=3).astype(np.float32)
        arrays["affine.axis"] = axis = np.int32(0)
        dense = mb.constexpr_affine_dequantize(
            quantized_data=data, zero_point=zero_point, scale=scale, axis=axis, name="affine"
        )
        return mb.add(x=x, y=dense, name="y")

    _save(program, ct.target.iOS16, path)
    return arrays


def two_functions(path: Path) -> None:
    """Functions "one" and "two", which is the default; they share the blob of `weight`."""
    ct, mb, types = _builder()
    from coremltools.converters.mil.mil import Function, Program

    program = Program()
    for batch, name in ((1, "one"), (2, "two")):
        with Function({"x": mb.placeholder(shape=(batch, 4), dtype=types.fp32)}, opset_version=ct.target.iOS18) as it:
            weight = mb.const(val=np.arange(12, dtype=np.float32).reshape(3, 4), name="weight")
            weight.op.weight_id = "shared"
            it.set_outputs([mb.linear(x=it.inputs["x"], weight=weight, name="y")])
            program.add_function(name, it)
    program.default_function_name = "two"
    program.export_as_multifunction = True
    _save(program, ct.target.iOS18, path)


def stateful(path: Path) -> None:
    """One state "s" that is read and written, and no weights at all."""
    ct, mb, types = _builder()

    @mb.program(
        input_specs=[mb.TensorSpec(shape=(2,), dtype=types.fp16), mb.StateTensorSpec(shape=(2,), dtype=types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x: Any, s: Any) -> Any:
        y = mb.add(x=x, y=mb.read_state(input=s, name="before"), name="sum")
        mb.coreml_update_state(state=s, value=y, name="after")
        return mb.identity(x=y, name="y")

    _save(program, ct.target.iOS18, path)


def branching(path: Path) -> None:
    """An operation with blocks of its own, "branch"."""
    ct, mb, types = _builder()

    @mb.program(input_specs=[mb.TensorSpec(shape=(1,), dtype=types.fp32)], opset_version=ct.target.iOS18)
    def program(x: Any) -> Any:
        positive = mb.squeeze(x=mb.greater(x=x, y=np.float32(0)))
        one = np.float32(1)
        return mb.cond(
            pred=positive, _true_fn=lambda: mb.add(x=x, y=one), _false_fn=lambda: mb.sub(x=x, y=one), name="branch"
        )

    _save(program, ct.target.iOS18, path)


def edit_model(package: Path, change: Callable[[Any], object]) -> None:
    """Parse the model of `package`, apply `change` to the message in place, and write it back."""
    from coremltools.proto.Model_pb2 import Model

    model = Model()
    model.ParseFromString((package / MODEL).read_bytes())
    change(model)
    (package / MODEL).write_bytes(model.SerializeToString())


def _builder() -> tuple[Any, Any, Any]:
    import coremltools
    from coremltools.converters.mil.mil import Builder, types

    Builder.name_count.clear()  # it counts the names of a whole process: each sample has those of a fresh one
    return coremltools, Builder, types


def _save(program: Any, target: Any, path: Path) -> None:
    import coremltools as ct

    logging.getLogger("coremltools").setLevel(logging.ERROR)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        skip_model_load=True,
        minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
    )
    model.author, model.license, model.version = "the author", "the license", "1.2"
    model.short_description = "what it is"
    model.user_defined_metadata["steps"] = "50"
    shutil.rmtree(path, ignore_errors=True)
    model.save(str(path))
