"""Factors as products of two float16 numbers: how near, and which operations of a network get them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mobile_export.backends.coreml.exact_factors import exact_factors, two_factors


@given(st.floats(2**-10, 2**10), st.booleans())
def test_two_float16_numbers_have_the_product(factor, negative):
    factor = -factor if negative else factor
    a, b = two_factors(factor)
    assert a == np.float16(a) and b == np.float16(b)
    assert abs(a * b / factor - 1) < 5e-6


def exported(function, *inputs):
    class Network(nn.Module):
        def forward(self, *given):
            return function(*given)

    return torch.export.export(Network(), inputs).run_decompositions({})


def numbers(program):
    """The numbers that tensors are multiplied with or divided by, in order."""
    kinds = (torch.ops.aten.mul.Tensor, torch.ops.aten.div.Tensor)
    nodes = [node for node in program.graph_module.graph.nodes if node.target in kinds]
    return [(node.target is kinds[0], node.args[1]) for node in nodes if not isinstance(node.args[1], torch.fx.Node)]


X = torch.linspace(-3, 3, 24).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("function", "factor"), [(lambda x: x * 1.702, 1.702), (lambda x: x / 3, 1 / 3), (lambda x: -0.3 * x, -0.3)]
)
def test_a_number_that_float16_lacks_becomes_two(function, factor):
    program = exported(function, X)
    exact_factors(program)
    (first, a), (second, b) = numbers(program)
    assert first and second and (a, b) == two_factors(factor)
    torch.testing.assert_close(program.module()(X), function(X), rtol=5e-6, atol=0)


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (lambda x: x * 3 + x / 8, X, [(True, 3), (False, 8)]),  # float16 has 3 and 1 / 8
        (lambda x: x * x / 1.0, X, [(False, 1.0)]),
        (lambda x: (x * 3) % 5, torch.arange(4), [(True, 3)]),
        (lambda t: torch.sin(t * 0.001) + torch.cos(t / 7), X[0], [(True, 0.001), (False, 7)]),
    ],
    ids=["exact", "one", "integers", "angles"],
)
def test_other_numbers_stay(function, x, expected):
    program = exported(function, x)
    exact_factors(program)
    assert numbers(program) == expected
    assert torch.equal(program.module()(x), function(x))


def test_what_an_image_of_angles_is_computed_from_is_not_an_angle():
    program = exported(lambda x: torch.sin(0.3 * x), X)
    exact_factors(program)
    assert [number for _, number in numbers(program)] == list(two_factors(0.3))
