"""Inception-v3's features through torch-fidelity: what it is given, and what is refused."""

import pickle
import sys
import types
import typing

import numpy as np
import pytest
import torch

from correction import UsageError
from mobile_export.evaluate.inception import FEATURES, inception

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


class Extractor:
    """Stands for the library's network: what it read and saw, and features that say which picture they are of."""

    seen: typing.ClassVar = []

    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        assert (name, features_list) == ("inception-v3-compat", ["2048"])
        state = torch.load(feature_extractor_weights_path, weights_only=False)
        if set(state) != {"weight"}:
            raise RuntimeError(f"unexpected keys {sorted(state)}")

    def __call__(self, x):
        Extractor.seen.append(x)
        return (x.float().mean((1, 2, 3))[:, None].expand(-1, FEATURES),)


@pytest.fixture
def library(monkeypatch):
    module = types.ModuleType(MODULE)
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, MODULE, module)
    Extractor.seen.clear()


@pytest.fixture
def weights(tmp_path):
    torch.save({"weight": torch.ones(3)}, tmp_path / "inception.pth")
    return tmp_path / "inception.pth"


def test_pictures_are_given_as_bytes_and_in_colour(library, weights):
    network = inception(weights)
    images = np.stack([np.full((1, 5, 7), value, np.float32) for value in (-2.0, -1.0, 0.0, 0.5, 1.0, 3.0)])
    found = network.features(images)
    (seen,) = Extractor.seen
    assert seen.dtype == torch.uint8 and seen.shape == (6, 3, 5, 7)
    np.testing.assert_array_equal(found[:, 0], [0, 0, 128, 191, 255, 255])
    assert found.shape == (6, FEATURES) and found.dtype == np.float32
    assert network.name.startswith("Inception-v3 features (") and network.enough == 4096
    assert network.features(images[:0]).shape == (0, FEATURES)
    assert network.features(np.zeros((70, 3, 4, 4), np.float32)).shape == (70, FEATURES)


def test_no_code_of_the_file_runs(library, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "plain.pkl", "missing.pth"):
        with pytest.raises(UsageError, match="cannot be read as weights"):
            inception(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_refused(library, tmp_path):
    torch.save({"other": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"other\.pth does not hold torch-fidelity's Inception-v3"):
        inception(tmp_path / "other.pth")


def test_without_the_library_it_says_what_to_install(monkeypatch, weights):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UsageError, match="pip install 'mobile-export\\[fid\\]'"):
        inception(weights)


def test_the_library_itself_with_random_weights(tmp_path):
    library = pytest.importorskip(MODULE, reason="torch-fidelity is not installed: its own network is not run")
    bare = library.FeatureExtractorInceptionV3.__new__(library.FeatureExtractorInceptionV3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", lambda self, _: None)
        library.FeatureExtractorInceptionV3.__init__(bare, "inception-v3-compat", [str(FEATURES)])
    torch.save(bare.state_dict(), tmp_path / "random.pth")
    found = inception(tmp_path / "random.pth").features(np.zeros((2, 3, 32, 32), np.float32))
    assert found.shape == (2, FEATURES) and np.isfinite(found).all()
