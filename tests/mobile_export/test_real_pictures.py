"""Statistics of a folder of pictures are those of its pictures, and what does not fit is named."""

import numpy as np
import pytest
from PIL import Image

from correction import UsageError
from mobile_export.evaluate.feature_network import FeatureNetwork
from mobile_export.evaluate.frechet import FeatureStatistics
from mobile_export.evaluate.real_pictures import real_statistics

SHAPE = (3, 4, 6)
MEANS = FeatureNetwork("means of rows", 4, lambda images: images.mean((1, 3)).astype(np.float32))


def pixels(count):
    return np.random.default_rng(0).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "more").mkdir()
    for i, each in enumerate(pixels(10)):
        Image.fromarray(each).save(tmp_path / ("more" if i % 2 else ".") / f"{i:02}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder(folder):
    found = real_statistics(folder, MEANS, SHAPE)
    images = pixels(10).transpose(0, 3, 1, 2) / 127.5 - 1
    expected = FeatureStatistics.of(images.mean((1, 3)))
    assert found.count == 10
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-6)


def test_gray_pictures_of_a_model_with_one_channel(folder):
    seen = []
    network = FeatureNetwork("seen", 4, lambda images: seen.append(images) or images.mean((1, 3)))
    real_statistics(folder, network, (1, 4, 6))
    assert seen[0].shape == (10, 1, 4, 6) and -1 <= seen[0].min() < seen[0].max() <= 1


def test_a_file(tmp_path):
    statistics = FeatureStatistics.of(np.random.default_rng(1).standard_normal((9, 4)))
    statistics.save(tmp_path / "real.safetensors")
    np.testing.assert_array_equal(real_statistics(tmp_path / "real.safetensors", MEANS, SHAPE).mean, statistics.mean)
    FeatureStatistics.of(np.ones((9, 5))).save(tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="has 5 features a picture; means of rows are 4"):
        real_statistics(tmp_path / "other.safetensors", MEANS, SHAPE)


def test_pictures_that_do_not_fit_are_named(folder):
    with pytest.raises(UsageError, match=r"00\.png is 6 x 4, the model's pictures are 8 x 8"):
        real_statistics(folder, MEANS, (3, 8, 8))
    (folder / "zz.jpg").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"zz\.jpg cannot be read as a picture"):
        real_statistics(folder, MEANS, SHAPE)


def test_too_few_pictures_are_refused(folder):
    (folder / "00.png").unlink()
    for path in sorted((folder / "more").iterdir())[:2]:
        path.unlink()
    with pytest.raises(UsageError, match="has 7 pictures; a distance of means of rows needs 8"):
        real_statistics(folder, MEANS, SHAPE)
