"""Floats to pictures: one rounding rule, the layout of a grid, and what is refused."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from synthetic import make_evaluation, on_core_ml

from mobile_export.pictures import PictureError, image_grid, to_uint8
from mobile_export.report.pictures import columns, data_uri, seed_rows, strip_rows


@pytest.mark.parametrize(
    ("value", "byte"),
    [(-1.0, 0), (1.0, 255), (0.0, 128), (-5.0, 0), (1.0001, 255), (1 / 255, 128), (3 / 255, 129), (-1 / 255, 127)],
)
def test_range_and_clamping(value: float, byte: int) -> None:
    assert to_uint8(np.float64(value)) == byte


def test_halves_are_rounded_to_even() -> None:
    halves = np.array([0.5, 126.5, 127.5, 253.5, 254.5])
    assert to_uint8(halves / 127.5 - 1).tolist() == [0, 126, 128, 254, 254]


def test_every_byte_comes_back() -> None:
    bytes_ = np.arange(256)
    assert (to_uint8((bytes_ / 127.5 - 1).astype(np.float32)) == bytes_).all()


@given(arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-4, 4, width=32)))
def test_rounding_is_near_and_monotonic(values: np.ndarray) -> None:
    result = to_uint8(values)
    assert result.dtype == np.uint8 and result.shape == values.shape
    assert np.abs(result / 127.5 - 1 - np.clip(values, -1, 1)).max() <= 0.5 / 127.5 + 1e-12
    assert (np.diff(result[np.argsort(values)].astype(int)) >= 0).all()


@given(
    count=st.integers(1, 7),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    columns=st.integers(1, 9),
    gap=st.integers(0, 3),
)
def test_grid_holds_every_image_at_its_place(
    count: int, channels: int, height: int, width: int, columns: int, gap: int
) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (count, channels, height, width))
    grid = np.asarray(image_grid(images, columns, gap))
    columns = min(columns, count)
    rows = -(-count // columns)
    assert grid.shape == (rows * height + (rows - 1) * gap, columns * width + (columns - 1) * gap, 4)
    for index in range(count):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        cell = grid[top : top + height, left : left + width]
        assert (cell[..., :3] == to_uint8(images[index]).transpose(1, 2, 0)).all()
        assert (cell[..., 3] == 255).all()
    assert (grid[..., 3] == 255).sum() == count * height * width  # all else is transparent


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 2, 8, 8), (2, 4, 8, 8), (0, 3, 8, 8), (2, 3, 0, 8), (8, 8, 3)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError, match=r"got .*" + str(shape[0])):
        image_grid(np.zeros(shape), 2)


@pytest.mark.parametrize(("columns", "gap"), [(0, 0), (-1, 0), (2, -1)])
def test_wrong_layout_is_refused(columns: int, gap: int) -> None:
    with pytest.raises(PictureError, match="columns"):
        image_grid(np.zeros((1, 3, 2, 2)), columns, gap)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_are_refused(value: float) -> None:
    with pytest.raises(PictureError, match="1 NaN or infinite of 4"):
        to_uint8(np.array([0.0, value, 1.0, -1.0]))


@pytest.mark.parametrize("values", [np.zeros(3, complex), np.array(["a"]), np.array([True])])
def test_other_types_are_refused(values: np.ndarray) -> None:
    with pytest.raises(PictureError, match="dtype"):
        to_uint8(values)


def decoded(uri: str) -> Image.Image:
    head, body = uri.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


@pytest.mark.parametrize("channels", [1, 3])
def test_data_uri_keeps_the_pixels(channels: int) -> None:
    images = np.random.default_rng(1).uniform(-1, 1, (1, channels, 5, 7))
    picture = decoded(data_uri(image_grid(images, 1)))
    assert picture.mode == "RGB" and picture.size == (7, 5)
    assert (np.asarray(picture) == to_uint8(images[0]).transpose(1, 2, 0)).all()


def test_rows_hold_the_pictures_of_their_seed() -> None:
    evaluation = make_evaluation(seeds=5)
    rows = seed_rows([evaluation], 3, 9)
    assert [row.title for row in rows] == ["travel", "faces"]
    picture = decoded(rows[1].pictures[2].uri)
    assert (np.asarray(picture) == to_uint8(evaluation.images["corrected"][4]).transpose(1, 2, 0)).all()
    assert "seed 4" in rows[1].pictures[2].alt and rows[1].pictures[2].better
    assert not rows[1].pictures[0].note
    strips = strip_rows([evaluation])
    assert len(strips) == 2 and all(len(row.pictures) == 3 for row in strips)
    assert (strips[0].pictures[1].width, strips[0].pictures[1].height) == (8 * 16 + 7, 16)


def test_two_parts_stand_beside_one_reference() -> None:
    one, other = make_evaluation(seeds=3), on_core_ml(make_evaluation(seeds=3, noise=0.3, gain=-1))
    assert [column.name for column in columns([one, other])] == [
        "reference",
        "ExecuTorch quantized",
        "ExecuTorch quantized + correction",
        "Core ML quantized",
        "Core ML quantized + correction",
    ]
    row = seed_rows([one, other], 2, 3)[0]
    shown = [decoded(picture.uri) for picture in row.pictures]
    expected = [one.images[v] for v in ("reference", "quantized", "corrected")]
    expected += [other.images[v] for v in ("quantized", "corrected")]
    for picture, images in zip(shown, expected, strict=True):
        assert (np.asarray(picture) == to_uint8(images[2]).transpose(1, 2, 0)).all()
    assert [picture.better for picture in row.pictures] == [False, False, True, False, False]
    assert "Core ML quantized + correction" in row.pictures[4].alt
    strips = strip_rows([one, other])
    assert [len(strip.pictures) for strip in strips] == [5, 5]
