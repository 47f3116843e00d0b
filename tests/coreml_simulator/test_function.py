"""Decoding of functions: definitions come before uses and once, types agree with values, sizes are bounded."""

import tracemalloc

import numpy as np
import pytest
import torch
from sample_packages import edit_model

from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError
from mobile_export.coreml_simulator.function import MAX_OPERATIONS
from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.values import DATA_TYPES, constant

FUNCTION = "elements.mlpackage: function 'main'"


def main(model):
    return model.mlProgram.functions["main"]


def block(model):
    return main(model).block_specializations["CoreML8"]


def operation(model, output):
    return next(it for it in block(model).operations if it.outputs[0].name == output)


def move_to_end(model, output):
    operations = block(model).operations
    moved = operations.pop(next(i for i, it in enumerate(operations) if it.outputs[0].name == output))
    operations.append(moved)


def resized(model, name, *shape):
    """Declare another shape of a constant, both as the operation's output and as its value."""
    it = operation(model, name)
    for type in (it.outputs[0].type.tensorType, it.attributes["val"].type.tensorType):
        del type.dimensions[:]
        type.rank = len(shape)
        for size in shape:
            type.dimensions.add().constant.size = size


def set_code(model, code):
    it = operation(model, "weight")
    it.outputs[0].type.tensorType.dataType = it.attributes["val"].type.tensorType.dataType = code


WEIGHT = "operation 49 (const 'weight')"
EDITS = [
    # definitions and uses
    (
        lambda m: move_to_end(m, "add_0"),
        PackageError,
        "operation 2 (add 'add_1'): 'x' is 'add_0', which no earlier operation defines",
    ),
    (
        lambda m: setattr(operation(m, "add_0").inputs["x"].arguments[0], "name", "add_0"),
        PackageError,
        "operation 1 (add 'add_0'): 'x' is 'add_0', which no earlier operation defines",
    ),
    (
        lambda m: setattr(operation(m, "add_0").inputs["x"].arguments[0], "name", "y"),
        PackageError,
        "operation 1 (add 'add_0'): 'x' is 'y', which no earlier operation defines",
    ),
    (
        lambda m: setattr(operation(m, "add_1").outputs[0], "name", "add_0"),
        PackageError,
        "operation 3 (add 'add_0'): defines 'add_0', which is defined already",
    ),
    (
        lambda m: setattr(operation(m, "add_1").outputs[0], "name", "x"),
        PackageError,
        "operation 3 (add 'x'): defines 'x', which is defined already",
    ),
    (
        lambda m: setattr(operation(m, "add_1").outputs[0], "name", "palette1.lut"),
        PackageError,
        "operation 3 (add 'palette1.lut'): defines 'palette1.lut', which is defined already",
    ),
    (
        lambda m: block(m).operations.append(operation(m, "half")),
        PackageError,
        "operation 60 (const 'half'): defines 'half', which is defined already",
    ),
    (lambda m: main(m).inputs.append(main(m).inputs[0]), PackageError, "defines 'x', which is defined already"),
    (lambda m: block(m).operations.pop(), PackageError, "output is 'y', which no earlier operation defines"),
    (lambda m: block(m).ClearField("outputs"), PackageError, "outputs must be there and differ, got []"),
    (lambda m: block(m).outputs.append("y"), PackageError, "outputs must be there and differ, got ['y', 'y']"),
    # form
    (lambda m: setattr(main(m), "opset", "CoreML7"), PackageError, "has no block for its opset 'CoreML7'"),
    (lambda m: block(m).inputs.add(), UnsupportedError, "its block has inputs of its own"),
    (
        lambda m: setattr(operation(m, "add_0"), "type", ""),
        PackageError,
        "operation 1: its type must be an identifier, got ''",
    ),
    (
        lambda m: setattr(operation(m, "add_0"), "type", "a\nb"),
        PackageError,
        "operation 1: its type must be an identifier, got 'a\\nb'",
    ),
    (
        lambda m: setattr(operation(m, "add_0").outputs[0], "name", "a\nb"),
        PackageError,
        "operation 1 (add 'a\\nb'): a value needs a printable name, got 'a\\nb'",
    ),
    (
        lambda m: operation(m, "add_0").outputs.add(),
        PackageError,
        "operation 1 (add 'add_0'): a value needs a printable name, got ''",
    ),
    (
        lambda m: operation(m, "add_0").outputs.add(name="more"),
        PackageError,
        "operation 1 (add 'add_0'), value 'more': the type is missing",
    ),
    (
        lambda m: operation(m, "add_0").outputs[0].type.tupleType.SetInParent(),
        UnsupportedError,
        "operation 1 (add 'add_0'), value 'add_0': type tupleType is not supported",
    ),
    (
        lambda m: operation(m, "add_0").inputs["z"].SetInParent(),
        PackageError,
        "operation 1 (add 'add_0'): 'z' has no value",
    ),
    (
        lambda m: operation(m, "add_0").inputs["z"].arguments.add(),
        PackageError,
        "operation 1 (add 'add_0'): 'z' is bound to nothing",
    ),
    (
        lambda m: operation(m, "add_0").attributes["x"].CopyFrom(operation(m, "half").attributes["val"]),
        PackageError,
        "operation 1 (add 'add_0'): has 'x' both as an input and as an attribute",
    ),
    (
        lambda m: operation(m, "add_0").attributes["name"].CopyFrom(operation(m, "half").attributes["val"]),
        PackageError,
        "operation 1 (add 'add_0'), attribute 'name': the name of an operation must stand in the program",
    ),
    (
        lambda m: operation(m, "add_0").attributes["name"].CopyFrom(operation(m, "int16_9").attributes["val"]),
        PackageError,
        "operation 1 (add 'add_0'), attribute 'name': must be a string, got int16[9]",
    ),
    # constants
    (
        lambda m: operation(m, "weight").attributes.pop("val"),
        PackageError,
        f"{WEIGHT}: needs one output, no input and the attribute 'val'",
    ),
    (
        lambda m: operation(m, "weight").inputs["x"].arguments.add(name="x"),
        PackageError,
        f"{WEIGHT}: needs one output, no input and the attribute 'val'",
    ),
    (
        lambda m: setattr(operation(m, "weight").outputs[0].type.tensorType, "dataType", 10),
        PackageError,
        f"{WEIGHT}: is declared as float16[2, 3, 1], its value as float32[2, 3, 1]",
    ),
    (
        lambda m: operation(m, "weight").attributes["val"].ClearField("immediateValue"),
        PackageError,
        f"{WEIGHT}: float32[2, 3, 1] must have a tensor or a blob as its value",
    ),
    (
        lambda m: operation(m, "weight").attributes["val"].immediateValue.list.SetInParent(),
        PackageError,
        f"{WEIGHT}: float32[2, 3, 1] must have a tensor or a blob as its value",
    ),
    (
        lambda m: operation(m, "weight").attributes["val"].immediateValue.tensor.floats.values.append(1),
        PackageError,
        f"{WEIGHT}: float32[2, 3, 1] takes 6 floats, got 7",
    ),
    (
        lambda m: operation(m, "weight").attributes["val"].immediateValue.tensor.ints.values.append(1),
        PackageError,
        f"{WEIGHT}: float32[2, 3, 1] must be given as floats, got ints",
    ),
    (
        lambda m: operation(m, "int16_9").attributes["val"].immediateValue.tensor.ints.values.__setitem__(3, 40_000),
        PackageError,
        "operation 35 (const 'int16_9'): int16 cannot hold all of 0 to 40000",
    ),
    (
        lambda m: operation(m, "uint16_9").attributes["val"].immediateValue.tensor.ints.values.__setitem__(3, -1),
        PackageError,
        "operation 40 (const 'uint16_9'): uint16 cannot hold all of -1 to 6",
    ),
    (
        lambda m: operation(m, "y_pad_type_0").attributes["val"].immediateValue.tensor.strings.values.append("same"),
        PackageError,
        "operation 54 (const 'y_pad_type_0'): strings of shape [] are declared, 2 are there",
    ),
    (
        lambda m: resized(m, "weight", 6, 2**40),
        PackageError,
        f"{WEIGHT}, value 'weight': a tensor may have {2**33} elements, got the shape [6, {2**40}]",
    ),
    (
        lambda m: resized(m, "weight", 0, 2**63, 2**63),
        PackageError,
        f"{WEIGHT}, value 'weight': a tensor may have {2**33} elements, got the shape [0, {2**63}, {2**63}]",
    ),
    (
        lambda m: resized(m, "weight", *[1] * 17),
        PackageError,
        f"{WEIGHT}, value 'weight': the rank must be the number of dimensions and at most 16, got 17 and 17",
    ),
    (
        lambda m: setattr(operation(m, "weight").outputs[0].type.tensorType, "rank", -1),
        PackageError,
        f"{WEIGHT}, value 'weight': the rank must be the number of dimensions and at most 16, got -1 and 3",
    ),
    (
        lambda m: operation(m, "weight").outputs[0].type.tensorType.dimensions[1].unknown.SetInParent(),
        UnsupportedError,
        f"{WEIGHT}, value 'weight': only static shapes are supported, dimension 1 has no size",
    ),
    (
        lambda m: set_code(m, 12),
        UnsupportedError,
        f"{WEIGHT}, value 'weight': element type 12 is not supported, only {', '.join(DATA_TYPES.values())}",
    ),
    (
        lambda m: set_code(m, 1000),
        UnsupportedError,
        f"{WEIGHT}, value 'weight': element type 1000 is not supported, only {', '.join(DATA_TYPES.values())}",
    ),
    (
        lambda m: setattr(operation(m, "int32_12").attributes["val"].blobFileValue, "offset", 2**64 - 64),
        PackageError,
        f"operation 30 (const 'int32_12'): weight.bin has 17 blobs, none of them at offset {2**64 - 64}",
    ),
]


@pytest.mark.parametrize(("change", "kind", "message"), EDITS)
def test_programs_that_contradict_themselves(elements, edited, change, kind, message):
    package = edited(elements[0])
    edit_model(package, change)
    with pytest.raises(kind) as caught:
        read_package(package).program()
    assert type(caught.value) is kind and str(caught.value) == f"{FUNCTION}: {message}"


def test_operations_and_values_are_counted(elements, edited, monkeypatch):
    package = edited(elements[0])
    edit_model(package, lambda m: [block(m).operations.add() for _ in range(MAX_OPERATIONS - 59)])
    with pytest.raises(PackageError) as caught:
        read_package(package).program()
    assert str(caught.value) == f"{FUNCTION}: may have 100000 operations, got 100001"

    package = edited(elements[0])
    edit_model(package, lambda m: [operation(m, "add_0").inputs["x"].arguments.add(name="x") for _ in range(1000)])
    assert read_package(package).program().operations[1].inputs["x"] == ("x",) * 1001
    monkeypatch.setattr("mobile_export.coreml_simulator.function.MAX_NAMES", 1000)
    with pytest.raises(PackageError) as caught:
        read_package(package).program()
    message = "operation 1 (add 'add_0'): all operations together may have 1000 values, this is beyond"
    assert str(caught.value) == f"{FUNCTION}: {message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: resized(m, "weight", 2**33), f"{WEIGHT}: float32[{2**33}] takes {2**33} floats, got 6"),
        (
            lambda m: resized(m, "int32_12", 2**33),
            f"operation 30 (const 'int32_12'): the program declares int32[{2**33}], that is {2**33} elements, "
            "weight.bin holds 12 of int32 at offset 3136",
        ),
    ],
)
def test_a_huge_shape_takes_no_memory(elements, edited, change, message):
    package = edited(elements[0])
    edit_model(package, change)
    opened = read_package(package)
    tracemalloc.start()
    try:
        with pytest.raises(PackageError) as caught:
            opened.program()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value) == f"{FUNCTION}: {message}" and peak < 2**20


def test_element_types_have_the_numbers_of_the_format():
    from coremltools.proto.MIL_pb2 import DataType

    assert {code: DataType.Name(code).lower() for code in DATA_TYPES} == DATA_TYPES


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("int4", b"\x87\x0f", [7, -8, -1]),
        ("uint3", b"\xd1\x58", [1, 2, 3, 4, 5]),
        ("int16", b"\xff\xff\x00\x80", [-1, -32768]),
        ("uint16", b"\xff\xff", [65535]),
        ("uint32", b"\xff\xff\xff\xff", [2**32 - 1]),
        ("float16", b"\x00\x3c", [1.0]),
    ],
)
def test_inline_bytes(name, raw, expected):
    from coremltools.proto.MIL_pb2 import Value

    code = {text: code for code, text in DATA_TYPES.items()}[name]
    message = Value()
    message.type.tensorType.dataType, message.type.tensorType.rank = code, 1
    message.type.tensorType.dimensions.add().constant.size = len(expected)
    message.immediateValue.tensor.bytes.values = raw
    decoded = constant(message, "here", None)
    assert decoded.value.tolist() == expected and decoded.value.dtype == decoded.type.element.carrier
    message.immediateValue.tensor.bytes.values = raw + b"\0"
    with pytest.raises(PackageError) as caught:
        constant(message, "here", None)
    assert str(caught.value) == f"here: {decoded.type} takes {len(raw)} bytes, got {len(raw) + 1}"


def test_empty_tensors_and_lists_of_strings():
    from coremltools.proto.MIL_pb2 import Value

    empty = Value()
    empty.type.tensorType.dataType, empty.type.tensorType.rank = 11, 2
    for size in (0, 3):
        empty.type.tensorType.dimensions.add().constant.size = size
    empty.immediateValue.tensor.SetInParent()
    decoded = constant(empty, "here", None)
    assert decoded.value.shape == (0, 3) and decoded.value.dtype == torch.float32

    text = Value()
    text.type.tensorType.dataType = 2
    text.immediateValue.tensor.strings.values.append("ab")
    items = Value()
    items.type.listType.SetInParent()
    items.immediateValue.list.values.extend([text, text])
    assert constant(items, "here", None).value == ("ab", "ab")
    items.immediateValue.list.values.append(empty)
    with pytest.raises(UnsupportedError, match=r"^here: only lists of strings are supported$"):
        constant(items, "here", None)


def test_inline_booleans_are_booleans(elements):
    package, arrays = elements
    flags = read_package(package).program().constants["flags"].value
    assert flags.dtype == torch.bool and flags.tolist() == arrays["flags"].tolist() and np.any(arrays["flags"])
