"""Opening packages: what coremltools wrote is what comes back, models that contradict themselves are refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_packages import MODEL, WEIGHTS, edit_model

from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError
from mobile_export.coreml_simulator.interface import Interface
from mobile_export.coreml_simulator.package import MAX_PROGRAM, Metadata, read_package
from mobile_export.coreml_simulator.program import Operation, Value
from mobile_export.coreml_simulator.tensor_type import ELEMENTS, TensorType


def tensor(element, *shape):
    return TensorType(ELEMENTS[element], shape)


def refused(package, kind, message):
    """`message` is what read_package, or else decoding the default function, must say."""
    with pytest.raises(kind) as caught:
        read_package(package).program()
    assert type(caught.value) is kind and str(caught.value) == message


@pytest.mark.parametrize("sample", ["elements", "palettes"])
def test_every_constant_is_the_array_that_went_in(sample, request):
    package, arrays = request.getfixturevalue(sample)
    constants = read_package(package).program().constants
    assert arrays.keys() <= constants.keys()
    for name, array in arrays.items():
        constant = constants[name]
        assert constant.type.shape == constant.value.shape == array.shape, name
        assert constant.value.dtype == constant.type.element.carrier
        np.testing.assert_array_equal(constant.value.numpy(), array, err_msg=name)


def test_element_types_are_the_declared_ones(elements, palettes):
    constants = read_package(elements[0]).program().constants
    types = {name: str(constants[name].type) for name in elements[1]}
    assert types == {
        "palette1.indices": "uint1[1, 3, 7]",
        "palette1.lut": "float32[1, 1, 1, 2, 1]",
        "palette2.indices": "uint2[1, 3, 7]",
        "palette2.lut": "float32[1, 1, 1, 4, 1]",
        "palette3.indices": "uint3[1, 3, 7]",
        "palette3.lut": "float32[1, 1, 1, 8, 1]",
        "palette4.indices": "uint4[1, 3, 7]",
        "palette4.lut": "float32[1, 1, 1, 16, 1]",
        "palette6.indices": "uint6[1, 3, 7]",
        "palette6.lut": "float32[1, 1, 1, 64, 1]",
        "palette8.indices": "uint8[1, 3, 7]",
        "palette8.lut": "float32[1, 1, 1, 256, 1]",
        "scaled_int4.data": "int4[1, 3, 7]",
        "scaled_int4.offset": "int4[1, 3, 1]",
        "scaled_int4.scale": "float32[1, 3, 1]",
        "scaled_uint4.data": "uint4[1, 3, 7]",
        "scaled_uint4.offset": "uint4[1, 3, 1]",
        "scaled_uint4.scale": "float32[1, 3, 1]",
        "scaled_int8.data": "int8[1, 3, 7]",
        "scaled_int8.offset": "int8[1, 3, 1]",
        "scaled_int8.scale": "float32[1, 3, 1]",
        "scaled_uint8.data": "uint8[1, 3, 7]",
        "scaled_uint8.offset": "uint8[1, 3, 1]",
        "scaled_uint8.scale": "float32[1, 3, 1]",
        "int16_12": "int16[12]",
        "uint16_12": "uint16[12]",
        "int32_12": "int32[12]",
        "int16_9": "int16[9]",
        "uint16_9": "uint16[9]",
        "half": "float16[3, 9]",
        "flags": "bool[9]",
        "weight": "float32[2, 3, 1]",
    }
    constants = read_package(palettes[0]).program().constants
    assert str(constants["palette4.shape"].type) == "uint32[2]"
    assert constants["palette4.shape"].value.dtype == torch.int64


def test_operations_keep_names_inputs_and_order(elements, palettes):
    program = read_package(elements[0]).program()
    assert program.inputs == (Value("x", tensor("float32", 1, 3, 7)),) and program.outputs == ("y",)
    assert program.operations[:2] == (
        Operation(
            "constexpr_lut_to_dense",
            "palette1",
            {"indices": ("palette1.indices",), "lut": ("palette1.lut",)},
            (Value("palette1", tensor("float32", 1, 3, 7)),),
        ),
        Operation("add", "add_0", {"x": ("x",), "y": ("palette1",)}, (Value("add_0", tensor("float32", 1, 3, 7)),)),
    )
    concat, convolution = program.operations[-2:]
    assert (concat.type, concat.inputs["values"]) == ("concat", ("select_0", "gather_4"))
    assert convolution.name == "y" and convolution.inputs["weight"] == ("weight",)
    assert program.constants[convolution.inputs["pad_type"][0]].value == "valid"
    assert "const" not in {operation.type for operation in program.operations}
    # iOS 16 keeps the data of a weight in attributes.
    legacy = read_package(palettes[0]).program().operations[0]
    assert legacy.inputs == {name: (f"palette1.{name}",) for name in ("indices", "lut", "shape")}


def test_names_of_inline_values_and_of_operations_without_a_name(elements, edited):
    package = edited(elements[0])

    def change(model):
        operations = model.mlProgram.functions["main"].block_specializations["CoreML8"].operations
        concat = next(operation for operation in operations if operation.type == "concat")
        half = next(operation for operation in operations if operation.outputs[0].name == "half")
        del concat.attributes["name"]
        concat.inputs["values"].arguments.add().value.CopyFrom(half.attributes["val"])
        concat.outputs[0].name = "all"
        operations[-1].inputs["x"].arguments[0].name = "all"

    edit_model(package, change)
    program = read_package(package).program()
    concat = program.operations[-2]
    assert concat.name == "all" and concat.inputs["values"] == ("select_0", "gather_4", "all.values.2")
    assert torch.equal(program.constants["all.values.2"].value, program.constants["half"].value)
    # Both refer to one blob.
    assert program.constants["all.values.2"].value.data_ptr() == program.constants["half"].value.data_ptr()


def test_metadata_versions_and_sizes(elements):
    package = read_package(elements[0])
    user_defined = dict(package.metadata.user_defined)
    assert user_defined.pop("steps") == "50"
    assert all(name.startswith("com.github.apple.coremltools.") for name in user_defined)
    assert package.metadata == Metadata("the author", "the license", "1.2", "what it is", package.metadata.user_defined)
    assert package.specification_version == 9
    assert (package.function_names, package.default_function) == (("main",), "main")
    assert package.sizes == {name: (elements[0] / name).stat().st_size for name in ("Manifest.json", MODEL, WEIGHTS)}
    assert package.inputs == {"x": tensor("float32", 1, 3, 7)} and package.outputs == {"y": tensor("float32", 1, 2, 18)}


def test_functions_share_their_weights(two_functions):
    package = read_package(two_functions)
    assert (package.function_names, package.default_function) == (("one", "two"), "two")
    assert package.interfaces == {
        "one": Interface({"x": tensor("float32", 1, 4)}, {"y": tensor("float32", 1, 3)}, {}),
        "two": Interface({"x": tensor("float32", 2, 4)}, {"y": tensor("float32", 2, 3)}, {}),
    }
    assert package.inputs == package.interfaces["two"].inputs
    one, two = package.program("one"), package.program()
    assert (one.function, two.function) == ("one", "two")
    assert one.constants["weight"].value.tolist() == np.arange(12.0).reshape(3, 4).tolist()
    assert one.constants["weight"].value.data_ptr() == two.constants["weight"].value.data_ptr()
    with pytest.raises(PackageError, match=r"^two_functions.mlpackage has the functions one, two, got 'three'$"):
        package.program("three")


def test_states(stateful):
    package = read_package(stateful)
    assert package.interfaces["main"].states == {"s": tensor("float16", 2)}
    assert package.inputs == {"x": tensor("float16", 2)}
    program = package.program()
    assert program.inputs == (Value("x", tensor("float16", 2)), Value("s", tensor("float16", 2), state=True))
    assert [(it.type, it.inputs, len(it.outputs)) for it in program.operations] == [
        ("read_state", {"input": ("s",)}, 1),
        ("add", {"x": ("x",), "y": ("before",)}, 1),
        ("write_state", {"data": ("sum",), "input": ("s",)}, 0),
        ("identity", {"x": ("sum",)}, 1),
    ]


def test_nested_blocks_are_not_supported(branching):
    message = "branching.mlpackage: function 'main': operation 3 (cond 'branch'): operations with blocks of their own"
    refused(branching, UnsupportedError, f"{message} are not supported")


def test_reading_twice_gives_the_same(elements):
    first, second = (read_package(elements[0]) for _ in range(2))
    one, two = first.program(), second.program()
    assert one.operations == two.operations and list(one.constants) == list(two.constants)
    assert [*one.operations[0].inputs] == sorted(one.operations[0].inputs)
    for name, constant in one.constants.items():
        other = two.constants[name]
        assert constant.type == other.type
        if isinstance(constant.value, torch.Tensor):
            assert torch.equal(constant.value, other.value)
        else:
            assert constant.value == other.value


def test_models_that_are_none(elements, edited):
    package = edited(elements[0])
    (package / MODEL).write_bytes(b"\xff" * 100)
    with pytest.raises(PackageError, match=rf"^{re.escape(MODEL)} of elements.mlpackage is not a Core ML model: "):
        read_package(package)
    os.truncate(package / MODEL, MAX_PROGRAM + 1)
    refused(package, PackageError, f"{MODEL} may have {MAX_PROGRAM} bytes, it has {MAX_PROGRAM + 1}")


EDITS = [
    (lambda m: m.ClearField("mlProgram"), UnsupportedError, "only ML programs are supported, this is of type None"),
    (
        lambda m: m.neuralNetwork.layers.add(),
        UnsupportedError,
        "only ML programs are supported, this is of type neuralNetwork",
    ),
    (
        lambda m: setattr(m, "specificationVersion", 11),
        UnsupportedError,
        "only specification versions 6 to 10 with program version 1 are known, got 11 with 1",
    ),
    (
        lambda m: setattr(m.mlProgram, "version", 2),
        UnsupportedError,
        "only specification versions 6 to 10 with program version 1 are known, got 9 with 2",
    ),
    (lambda m: m.mlProgram.functions.clear(), PackageError, "must have 1 to 100 functions, got 0"),
    (
        lambda m: [m.mlProgram.functions[f"f{i}"] for i in range(100)],
        PackageError,
        "must have 1 to 100 functions, got 101",
    ),
    (
        lambda m: m.mlProgram.functions["second"],
        PackageError,
        "describes the functions ['main'], it has ['main', 'second']",
    ),
    (
        lambda m: [m.description.functions.add(name="main") for _ in range(2)],
        PackageError,
        "describes the functions ['main'], it has ['main']",
    ),
    (
        lambda m: setattr(m.description, "defaultFunctionName", "other"),
        PackageError,
        "its default function 'other' is none of main",
    ),
    (
        lambda m: m.description.input[0].type.multiArrayType.shape.__setitem__(0, 2),
        PackageError,
        "function 'main': inputs are described as x float32[2, 3, 7], the function has x float32[1, 3, 7]",
    ),
    (
        lambda m: setattr(m.description.input[0].type.multiArrayType, "dataType", 65552),
        PackageError,
        "function 'main': inputs are described as x float16[1, 3, 7], the function has x float32[1, 3, 7]",
    ),
    (
        lambda m: m.description.output.pop(),
        PackageError,
        "function 'main': outputs are described as none, the function has y float32[1, 2, 18]",
    ),
    (
        lambda m: m.description.output.append(m.description.output[0]),
        PackageError,
        "function 'main': output 'y': names must be printable and differ",
    ),
    (
        lambda m: m.mlProgram.functions["a\nb"],
        PackageError,
        "names of functions must be printable, got ['a\\nb', 'main']",
    ),
    (
        lambda m: setattr(m.description.input[0], "name", "\t"),
        PackageError,
        "function 'main': input '\\t': names must be printable and differ",
    ),
    (
        lambda m: setattr(m.description.input[0], "name", ""),
        PackageError,
        "function 'main': input '': names must be printable and differ",
    ),
    (
        lambda m: m.description.input[0].type.imageType.SetInParent(),
        UnsupportedError,
        "function 'main': input 'x': must be of multiArrayType, got imageType",
    ),
    (
        lambda m: m.description.input[0].type.multiArrayType.shape.append(0),
        PackageError,
        f"function 'main': input 'x': needs positive sizes and at most {2**33} elements, got [1, 3, 7, 0]",
    ),
    (
        lambda m: m.description.input[0].type.multiArrayType.shape.append(2**40),
        PackageError,
        f"function 'main': input 'x': needs positive sizes and at most {2**33} elements, got [1, 3, 7, {2**40}]",
    ),
    (
        lambda m: m.description.input[0].type.multiArrayType.shapeRange.sizeRanges.add(),
        UnsupportedError,
        "function 'main': input 'x': only static shapes are supported",
    ),
    (
        lambda m: m.description.input.extend([m.description.input[0]] * 1000),
        PackageError,
        "function 'main': may have 1000 inputs, got 1001",
    ),
]


@pytest.mark.parametrize(("change", "kind", "message"), EDITS)
def test_models_that_contradict_themselves(elements, edited, change, kind, message):
    package = edited(elements[0])
    edit_model(package, change)
    refused(package, kind, f"elements.mlpackage: {message}")


def test_the_simulator_stands_alone():
    """It imports nothing else of the product, and coremltools only when a package is read."""
    code = (
        "import sys, mobile_export.coreml_simulator.package; "
        "print(*sorted(name for name in sys.modules if name.partition('.')[0] in "
        "('mobile_export', 'correction', 'coremltools', 'google')))"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    others = [name for name in run.stdout.split() if not name.startswith("mobile_export.coreml_simulator")]
    assert run.stderr == "" and others == ["mobile_export"]
