"""The evaluator: modes, and what it checks of programs and inputs."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hand_made import constant, halves, program

from mobile_export.coreml_simulator.errors import ProgramError, UnsupportedError
from mobile_export.coreml_simulator.ops import OPS
from mobile_export.coreml_simulator.program import Program
from mobile_export.coreml_simulator.simulator import Simulator

SMALL = program({"x": "float32[1, 3]"}, [("y: float32[1, 3]", "relu", {"x": "x"})], ["y"])


# ---- modes ----

CHAIN = program(
    {"x": "float16[4, 5]"},
    [
        ("scaled: float16[4, 5]", "mul", {"x": "x", "y": constant(0.1, "float16")}),
        ("wide: float32[4, 5]", "cast", {"x": "scaled", "dtype": constant("fp32")}),
        ("third: float32[4, 5]", "mul", {"x": "wide", "y": constant(1 / 3, "float32")}),
        ("narrow: float16[4, 5]", "cast", {"x": "third", "dtype": constant("fp16")}),
        ("root: float16[4, 5]", "exp", {"x": "narrow"}),
    ],
    ["root"],
)
VALUES = ("scaled", "wide", "third", "narrow", "root")


def test_declared_rounds_each_result_as_float16_arithmetic_does() -> None:
    x = halves()
    got = Simulator(CHAIN)({"x": x}, watch=VALUES)

    scaled = x * np.float16(0.1)
    third = scaled.astype(np.float32) * np.float32(1 / 3)
    narrow = third.astype(np.float16)
    root = np.exp(narrow.astype(np.float32)).astype(np.float16)
    for name, want in zip(VALUES, (scaled, scaled, third, narrow, root), strict=True):
        assert got[name].dtype == torch.float32
        np.testing.assert_array_equal(got[name].numpy(), want.astype(np.float32), err_msg=name)


def test_float32_rounds_nothing_but_keeps_constants_as_stored() -> None:
    x = halves().astype(np.float32) * np.float32(1.0001)
    got = Simulator(CHAIN, mode="float32")({"x": x})["root"].numpy()

    want = np.exp(x * np.float32(np.float16(0.1)) * np.float32(1 / 3))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert not np.array_equal(got, got.astype(np.float16).astype(np.float32))


def test_declared_rounds_a_float16_input() -> None:
    x = halves((1, 3)).astype(np.float32) + np.float32(1e-4)
    same = program({"x": "float16[1, 3]"}, [("y: float16[1, 3]", "identity", {"x": "x"})], ["y"])
    np.testing.assert_array_equal(Simulator(same)({"x": x})["y"].numpy(), x.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(Simulator(same, mode="float32")({"x": x})["y"].numpy(), x)


def test_beyond_65504_float16_is_infinite() -> None:
    square = program({"x": "float16[4]"}, [("y: float16[4]", "square", {"x": "x"})], ["y"])
    x = np.array([255, 256, -300, 255.875], np.float16)
    assert Simulator(square)({"x": x})["y"].tolist() == [65024.0, np.inf, np.inf, 65472.0]
    assert Simulator(square, mode="float32")({"x": x})["y"].tolist() == [65025.0, 65536.0, 90000.0, 65472.015625]


def test_an_exact_operation_rounds_when_a_wider_operand_comes_in() -> None:
    wide = program(
        {"x": "float16[2]"},
        [("y: float16[2]", "maximum", {"x": "x", "y": constant([0.1, 0.1], "float32")})],
        ["y"],
    )
    got = Simulator(wide)({"x": np.zeros(2, np.float16)})["y"]
    assert got.tolist() == [float(np.float16(0.1))] * 2


def test_compressed_constants_are_rounded_once_where_declared() -> None:
    codes, scale = np.arange(-8, 4).reshape(3, 4), np.array([[0.1], [0.3], [0.7]], np.float16)
    weights = program(
        {"x": "float16[1, 4]"},
        [
            (
                "w: float16[3, 4]",
                "constexpr_blockwise_shift_scale",
                {"data": constant(codes, "int4"), "scale": constant(scale, "float16")},
            ),
            ("y: float16[1, 3]", "linear", {"x": "x", "weight": "w"}),
        ],
        ["y"],
    )
    exact = codes * scale.astype(np.float32)
    for mode, want in (("declared", exact.astype(np.float16).astype(np.float32)), ("float32", exact)):
        simulator = Simulator(weights, mode=mode)
        got = simulator({"x": np.eye(4, dtype=np.float16)[:1]}, watch=["w"])
        np.testing.assert_array_equal(got["w"].numpy(), want)
        assert len(simulator._plan.steps) == 1, "the constant is computed at construction"


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mode 'half'; allowed are 'declared' and 'float32'"):
        Simulator(SMALL, mode="half")  # type: ignore[arg-type]


# ---- what the program says is checked ----


@pytest.mark.parametrize(
    ("declared", "got"),
    [("float32[3, 1]", "float32[1, 3]"), ("int32[1, 3]", "float32[1, 3]"), ("float32[1, 1, 3]", "float32[1, 3]")],
)
def test_a_result_that_is_not_as_declared(declared: str, got: str) -> None:
    wrong = program({"x": "float32[1, 3]"}, [(f"y: {declared}", "exp", {"x": "x"})], ["y"])
    message = f"exp 'y': 'y' came out as {got}, declared is {declared}"
    with pytest.raises(ProgramError, match=re.escape(message)):
        Simulator(wrong)({"x": np.zeros((1, 3), np.float32)})
    with pytest.raises(ProgramError, match=re.escape(message)):
        Simulator(wrong)({"x": np.zeros((5, 1, 3), np.float32)})


@pytest.mark.parametrize(
    ("declared", "operation", "arguments"),
    [
        ("float32[1, 3]", "exp", {"x": "x"}),
        ("float32[1, 3]", "mul", {"x": constant(2.0, "float32"), "y": "x"}),
        ("float32[1, 3]", "cast", {"x": "x", "dtype": constant("fp16")}),
    ],
)
def test_a_float_type_that_does_not_follow_from_the_operands(declared: str, operation: str, arguments: dict) -> None:
    wrong = program({"x": "float16[1, 3]"}, [(f"y: {declared}", operation, arguments)], ["y"])
    with pytest.raises(ProgramError, match=re.escape(f"{operation} 'y': 'y' is float16, declared is {declared}")):
        Simulator(wrong)


def test_every_missing_operation_is_named_with_its_layer() -> None:
    missing = program(
        {"x": "float32[1, 3]"},
        [
            ("a: float32[1, 3]", "lstm", {"x": "x"}),
            ("b: float32[1, 3]", "lstm", {"x": "x"}),
            ("c: float32[1, 3]", "crop_resize", {"x": "x"}),
        ],
        ["c"],
    )
    with pytest.raises(UnsupportedError) as caught:
        Simulator(missing)
    assert str(caught.value) == (
        "operations that are not supported: lstm (first at 'a'), crop_resize (first at 'c'); supported are "
        + ", ".join(sorted(OPS))
    )


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        ("leaky_relu", {"x": "x"}, "leaky_relu 'y' needs alpha, it has x"),
        ("add", {"x": "x"}, "add 'y' needs y, it has x"),
        ("concat", {"axis": constant(0)}, "concat 'y' needs values, it has axis"),
        ("relu", {"x": "z"}, "relu 'y': x is 'z', which nothing before it defines"),
        ("relu", {"x": ["x", "x"]}, "relu 'y': x is 2 values; one is allowed"),
        ("softmax", {"x": "x", "axis": constant([0, 1])}, "softmax 'y': axis has 2 values; one is allowed"),
        ("softmax", {"x": "x", "axis": constant("last")}, "softmax 'y': axis is 'last'; expected is int"),
        ("relu", {"x": "x", "slope": constant(1)}, "relu 'y': unknown parameters slope; known are x"),
        ("reshape", {"x": "x", "shape": "n"}, "reshape 'y': shape is computed at run time; supported are constants"),
        ("cast", {"x": "x", "dtype": constant("fp8")}, "element type 'fp8' is not supported; supported are bool,"),
    ],
)
def test_an_operation_that_cannot_be_bound(operation: str, arguments: dict, message: str) -> None:
    wrong = program({"x": "float32[1, 3]", "n": "int32[1]"}, [("y: float32[1, 3]", operation, arguments)], ["y"])
    with pytest.raises((ProgramError, UnsupportedError), match=re.escape(message)):
        Simulator(wrong)


def test_programs_that_contradict_themselves() -> None:
    twice = [("y: float32[1, 3]", "relu", {"x": "x"})] * 2
    with pytest.raises(ProgramError, match="relu 'y' defines 'y' a second time"):
        Simulator(program({"x": "float32[1, 3]"}, twice, ["y"]))
    with pytest.raises(ProgramError, match="output 'z' is not made by any operation"):
        Simulator(program({"x": "float32[1, 3]"}, twice[:1], ["z"]))


def test_an_error_inside_of_an_operation_names_it() -> None:
    wrong = program(
        {"x": "float32[2, 3]"},
        [("y: float32[2, 2]", "matmul", {"x": "x", "y": constant(np.ones((2, 2)), "float32")})],
        ["y"],
    )
    with pytest.raises(ProgramError, match="matmul 'y' cannot be computed: "):
        Simulator(wrong)({"x": np.zeros((2, 3), np.float32)})


def test_an_index_outside_of_the_axis_is_an_error_also_in_a_batch() -> None:
    look_up = program(
        {"i": "int32[2]"},
        [("y: float32[2]", "gather", {"x": constant([1.0, 2.0, 3.0], "float32"), "indices": "i"})],
        ["y"],
    )
    simulator = Simulator(look_up)
    assert simulator({"i": np.array([2, -1], np.int32)})["y"].tolist() == [3.0, 3.0]
    for index in ([3, 0], [-4, 0]):
        with pytest.raises(ProgramError, match="gather 'y' cannot be computed"):
            simulator({"i": np.array(index, np.int32)})
        with pytest.raises(ProgramError, match="gather 'y' cannot be computed"):
            simulator({"i": np.array([[0, 0], index], np.int32)})


# ---- inputs ----


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs are none, expected are 'x' float32[1, 3]"),
        ({"x": np.zeros((1, 3), np.float32), "t": np.zeros(1)}, "inputs are 'x', 't', expected are 'x' float32[1, 3]"),
        ({"x": np.zeros((1, 4), np.float32)}, "input 'x' is float32[1, 4], declared is float32[1, 3]; allowed is"),
        (
            {"x": np.zeros((1, 3))},
            "input 'x' is float64[1, 3], declared is float32[1, 3]; allowed is float16 or float32",
        ),
        ({"x": np.zeros((1, 3), np.int32)}, "input 'x' is int32[1, 3], declared is float32[1, 3]"),
        ({"x": np.zeros((2, 2, 1, 3), np.float32)}, "input 'x' is float32[2, 2, 1, 3], declared is float32[1, 3]"),
        ({"x": np.zeros((0, 1, 3), np.float32)}, "input 'x' is float32[0, 1, 3], declared is float32[1, 3]"),
    ],
)
def test_inputs_that_do_not_fit(inputs: dict, message: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(message)):
        Simulator(SMALL)(inputs)


def test_results_are_copies() -> None:
    x = torch.zeros(1, 3)
    same = program({"x": "float32[1, 3]"}, [("y: float32[1, 3]", "identity", {"x": "x"})], ["y"])
    simulator = Simulator(same)
    result = simulator({"x": x}, watch=["x"])
    result["y"].add_(1)
    result["x"].add_(1)
    assert x.tolist() == [[0, 0, 0]]


# ---- negative controls: what a test above would let pass must not ----


def table(indices: list[int], lut: list[float]) -> Program:
    return program(
        {"x": "float32[1, 4]"},
        [
            (
                "w: float32[1, 4]",
                "constexpr_lut_to_dense",
                {
                    "indices": constant([indices], "uint2"),
                    "lut": constant(np.array(lut).reshape(1, 1, 4, 1), "float32"),
                },
            ),
            ("y: float32[1, 1]", "linear", {"x": "x", "weight": "w"}),
        ],
        ["y"],
    )


def test_one_wrong_index_of_a_table_changes_the_result() -> None:
    x = {"x": np.array([[1, 10, 100, 1000]], np.float32)}
    assert Simulator(table([0, 1, 2, 3], [1, 2, 3, 4]))(x)["y"].item() == 4321
    assert Simulator(table([0, 1, 2, 2], [1, 2, 3, 4]))(x)["y"].item() == 3321
    with pytest.raises(ProgramError, match="constexpr_lut_to_dense 'w': index 4 of a table with 4 entries"):
        Simulator(table([0, 1, 2, 4], [1, 2, 3, 4]))


def test_swapped_scales_change_the_result() -> None:
    results = []
    for scale in ([0.5, 2.0], [2.0, 0.5]):
        arguments = {"data": constant([[1], [1]], "int8"), "scale": constant(np.array(scale)[:, None], "float32")}
        scaled = program(
            {"x": "float32[2, 1]"},
            [
                ("w: float32[2, 1]", "constexpr_blockwise_shift_scale", arguments),
                ("y: float32[2, 1]", "mul", {"x": "x", "y": "w"}),
            ],
            ["y"],
        )
        results.append(Simulator(scaled)({"x": np.ones((2, 1), np.float32)})["y"].flatten().tolist())
    assert results == [[0.5, 2.0], [2.0, 0.5]]
