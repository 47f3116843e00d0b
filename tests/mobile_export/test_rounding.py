"""Rounding with a view to the inputs: the same levels, nearer outputs, in every format."""

from dataclasses import replace

import pytest
import torch

from mobile_export.quantize.observation import InputCorrelation
from mobile_export.quantize.palette import quantize_palette
from mobile_export.quantize.rounding import round_to_inputs
from mobile_export.quantize.table import quantize_weight
from mobile_export.quantize.weight_format import WeightFormat
from mobile_export.quantize.weights import quantize_linear

FORMATS = [("channel", b) for b in (2, 3, 4)] + [("block2", 4)]
FORMATS += [(name, bits) for name in ("palette2", "palette") for bits in (1, 2, 3, 4)]


def output_error(weight, found, rows):
    """|W x - W_q x|^2 over the rows of inputs."""
    difference = (found.dequantize() - weight).flatten(1).double()
    return float((rows.double() @ difference.T).square().sum())


def inputs_that_mostly_say_the_same(columns, generator):
    rows = torch.randn(4 * columns, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
    return rows + 0.1 * torch.randn(rows.shape, generator=generator)


@pytest.mark.parametrize("shape", [(8, 40), (6, 4, 3, 3), (4, 100)], ids=["linear", "convolution", "two blocks"])
@pytest.mark.parametrize(("name", "bits"), FORMATS)
def test_levels_are_kept_and_outputs_come_nearer(shape, name, bits):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    rows = inputs_that_mostly_say_the_same(weight[0].numel(), generator)
    total = rows.T @ rows
    format = WeightFormat.parse(name)
    start = quantize_weight(weight, bits, format, InputCorrelation(None, total.diagonal().double()))
    found = round_to_inputs(weight, start, total[None])
    if bits > 1:
        taken = quantize_weight(weight, bits, format, InputCorrelation(total[None], total.diagonal().double()))
        assert torch.equal(taken.dequantize(), found.dequantize())
    assert found.bits == bits and found.format == start.format == format
    kept = {key: tensor for key, tensor in start.tensors.items() if key not in ("codes", "indices")}
    assert kept and all(torch.equal(found.tensors[key], tensor) for key, tensor in kept.items())
    assert output_error(weight, found, rows) < 0.6 * output_error(weight, start, rows)


def some_start(kind):
    weight = torch.randn(4, 70, generator=torch.Generator().manual_seed(0))
    return weight, (quantize_linear(weight, 4) if kind == "linear" else quantize_palette(weight, 2, 2))


@pytest.mark.parametrize("kind", ["linear", "palette"])
def test_inputs_that_have_nothing_in_common_or_are_always_zero_leave_plain_rounding(kind):
    weight, start = some_start(kind)
    for correlation in (torch.diag(torch.linspace(1, 2, 70).double()), torch.zeros(70, 70).double()):
        assert torch.equal(round_to_inputs(weight, start, correlation[None]).dequantize(), start.dequantize())


@pytest.mark.parametrize("kind", ["linear", "palette"])
def test_groups_of_inputs_are_rounded_as_if_each_were_a_layer(kind):
    weight, start = some_start(kind)
    rows = inputs_that_mostly_say_the_same(70, torch.Generator().manual_seed(1))
    total = torch.stack([part.T @ part for part in rows.split(35, 1)])
    found = round_to_inputs(weight, start, total).dequantize()
    for k, columns in enumerate((slice(35), slice(35, 70))):
        codes = "codes" if kind == "linear" else "indices"
        part = replace(start, **{codes: start.tensors[codes][:, columns]})
        expected = round_to_inputs(weight[:, columns], part, total[k][None]).dequantize()
        assert torch.equal(found[:, columns], expected)
    assert not torch.equal(found, start.dequantize())


def test_a_group_of_inputs_is_rounded_on_the_scales_of_its_blocks():
    weight = torch.randn(4, 70, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, 1, 70)
    start = quantize_linear(weight, 4, 35)
    rows = inputs_that_mostly_say_the_same(70, torch.Generator().manual_seed(1))
    total = torch.stack([part.T @ part for part in rows.split(35, 1)])
    found = round_to_inputs(weight, start, total).dequantize()
    for k, columns in enumerate((slice(35), slice(35, 70))):
        part = replace(start, codes=start.codes[:, columns], scale=start.scale[:, k])
        assert torch.equal(found[:, columns], round_to_inputs(weight[:, columns], part, total[k][None]).dequantize())


def test_two_inputs_that_are_one_share_their_rounding_error():
    """The columns act as their sum: 0.4 + 0.4 of a step is nearer to 1 than to the 0 of plain rounding."""
    weight = torch.tensor([[0.4, 0.4, 7.0]])
    start = quantize_linear(torch.tensor([[1.0, 1.0, 7.0]]), 4)
    assert float(start.scale) == 1
    correlation = torch.tensor([[1.0, 0.999, 0], [0.999, 1.0, 0], [0, 0, 1.0]]).double()
    assert sorted(round_to_inputs(weight, start, correlation[None]).codes[0, :2].tolist()) == [0, 1]


def without_and_with_correlation(name, bits):
    """(weight, rows of its inputs, codes from the inputs' energies alone, codes from their correlation)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 100, generator=generator)
    rows = inputs_that_mostly_say_the_same(100, generator)
    total = (rows.T @ rows).double()
    codes = (
        quantize_weight(weight, bits, WeightFormat.parse(name), InputCorrelation(t, total.diagonal()))
        for t in (None, total[None])
    )
    return weight, rows, *codes


@pytest.mark.parametrize(("name", "bits"), [("channel", 8), ("block2", 8), ("palette2", 6), ("palette", 8)])
def test_weights_of_6_and_8_bits_are_rounded_to_their_inputs_too(name, bits):
    weight, rows, plain, found = without_and_with_correlation(name, bits)
    assert not torch.equal(found.dequantize(), plain.dequantize())
    errors = [float((rows @ (each.dequantize() - weight).T).square().sum()) for each in (plain, found)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(("name", "bits"), [("palette2", 1), ("palette", 1)])
def test_at_1_bit_weights_are_rounded_plainly(name, bits):
    weight, rows, without, with_total = without_and_with_correlation(name, bits)
    assert torch.equal(with_total.dequantize(), without.dequantize())
    # Errors weigh as much as the inputs that they meet.
    heard = quantize_palette(weight, bits, with_total.format.size, (rows.T @ rows).double().diagonal())
    assert torch.equal(without.dequantize(), heard.dequantize())
    assert not torch.equal(without.dequantize(), quantize_palette(weight, bits, heard.format.size).dequantize())
