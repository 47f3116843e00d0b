"""Prompt files and pictures to start from: what is read, and what is refused by name."""

import numpy as np
import pytest
from PIL import Image

from correction import UsageError
from mobile_export.pictures import read_picture
from mobile_export.prompts import CALIBRATION_PROMPTS, MAX_BYTES, MAX_PROMPTS, read_prompts


def test_prompts_are_lines_without_blanks_around_them(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("  a cat \n\n un café à Paris\r\n\ta dog\n", encoding="utf-8")
    assert read_prompts(path) == ("a cat", "un café à Paris", "a dog")
    path.write_text("\n".join(CALIBRATION_PROMPTS))
    assert read_prompts(path) == CALIBRATION_PROMPTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold 1 to 256 prompts, one a line, it has 0"),
        (b" \n\n", "it has 0"),
        ("\n".join(map(str, range(MAX_PROMPTS + 1))).encode(), "it has 257"),
        (b"a cat\na dog\na cat \n", "holds 'a cat' twice"),
        (b"caf\xe9", "is not UTF-8 text"),
        (b"x" * (MAX_BYTES + 1), "is larger than 1048576 bytes"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "p.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_prompts(path)


def test_a_picture_is_cut_in_the_middle_and_scaled(tmp_path):
    values = np.zeros((4, 8, 3), np.uint8)
    values[:, 2:6] = 255, 51, 0
    Image.fromarray(values).save(tmp_path / "p.png")
    read = read_picture(tmp_path / "p.png", 4, 4)
    assert read.shape == (1, 3, 4, 4) and read.dtype == np.float32 and read.flags.c_contiguous
    for channel, level in enumerate((1.0, -0.6, -1.0)):
        np.testing.assert_allclose(read[0, channel], level, atol=1e-6)
    assert read_picture(tmp_path / "p.png", 8, 6).shape == (1, 3, 8, 6)


def test_a_gray_or_transparent_picture_has_three_channels(tmp_path):
    Image.new("LA", (3, 3), (255, 0)).save(tmp_path / "p.png")
    assert (read_picture(tmp_path / "p.png", 3, 3) == 1).all()


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "p.png").write_bytes(b"\x89PNG nothing")
    for path in (tmp_path / "p.png", tmp_path / "none.png"):
        with pytest.raises(UsageError, match=rf"{path.name}' cannot be read as a picture"):
            read_picture(path, 4, 4)
