"""Sub-byte integers: the layout is that of numpy's little-endian bit packing, for every width and odd lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_export.coreml_simulator.packing import WIDTHS, pack, packed_size, unpack


@st.composite
def codes(draw):
    width = draw(st.sampled_from(WIDTHS))
    return width, np.array(draw(st.lists(st.integers(0, 2**width - 1), max_size=67)), np.uint8)


def by_bits(values, width):
    """The same bytes, made bit by bit."""
    bits = [value >> bit & 1 for value in values.tolist() for bit in range(width)]
    return np.packbits(np.array(bits, np.uint8), bitorder="little")


@given(codes())
def test_packed_bytes_are_the_bits_in_order(sample):
    width, values = sample
    packed = pack(values, width)
    assert packed.dtype == np.uint8 and packed.tolist() == by_bits(values, width).tolist()
    assert len(packed) == packed_size(len(values), width)


@given(codes())
def test_unpacking_inverts_packing(sample):
    width, values = sample
    unpacked = unpack(by_bits(values, width), width, len(values))
    assert unpacked.dtype == np.uint8 and unpacked.tolist() == values.tolist()


@given(codes(), st.integers(-3, 3).filter(bool))
def test_bytes_of_another_size_are_refused(sample, more):
    width, values = sample
    packed = pack(values, width)
    data = np.zeros(max(len(packed) + more, 0), np.uint8)
    if len(data) != len(packed):
        message = f"{len(values)} elements of {width} bits take {len(packed)} bytes of uint8, got uint8 of shape "
        with pytest.raises(ValueError) as caught:
            unpack(data, width, len(values))
        assert str(caught.value) == message + str([len(data)])


@pytest.mark.parametrize("width", [0, 5, 7, 9, -1])
def test_other_widths_are_refused(width):
    message = f"an element has 1, 2, 3, 4, 6, 8 bits, got {width}"
    with pytest.raises(ValueError, match=message):
        pack(np.zeros(3, np.uint8), width)
    with pytest.raises(ValueError, match=message):
        unpack(np.zeros(3, np.uint8), width, 3)


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^values of 3 bits are below 8, got 8$"):
        pack(np.array([0, 8, 7], np.uint8), 3)
    with pytest.raises(ValueError, match=r"^values must be uint8 of one dimension, got int64 of shape \[2\]$"):
        pack(np.array([0, 1]), 3)
