"""Core ML itself beside the simulator, where the system has it: shown with stand-ins for the system."""

import sys
import types

import numpy as np
import pytest
import torch
from coreml_cases import make_package

from correction import CheckFailed
from mobile_export.backends import BACKENDS
from mobile_export.backends.artifact import ArtifactDenoiser
from mobile_export.backends.coreml.apple import AppleRuntime, load_predict
from mobile_export.backends.coreml.artifact import CoreMLArtifact
from mobile_export.backends.coreml.backend import CoreMLBackend
from mobile_export.models.component import Port, Signature
from mobile_export.quantize.recipe import Recipe
from mobile_export.verify import verify_part

SIGNATURE = Signature(
    (Port("sample", (1, 3, 8, 8), "float32"), Port("timestep", (1,), "float32"), Port("class_labels", (1,), "int32")),
    Port("noise_pred", (1, 3, 8, 8), "float32"),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_package(tmp_path_factory.mktemp("native"), "classes", Recipe.of("w8a16")).path


def predict_of(path):
    """A stand-in for Core ML: the simulator, checking what it is given."""
    artifact = CoreMLArtifact(path, SIGNATURE)

    def predict(inputs):
        assert {name: (a.shape, a.dtype.name) for name, a in inputs.items()} == {
            "sample": ((1, 3, 8, 8), "float32"),
            "timestep": ((1,), "float32"),
            "class_labels": ((1,), "int32"),
        }
        return {"noise_pred": artifact.run({k: torch.from_numpy(v) for k, v in inputs.items()}, 1).numpy()}

    return predict


def test_the_platforms_runtime_is_a_denoiser_like_any_other(path):
    sample = np.random.default_rng(1).normal(size=(3, 3, 8, 8)).astype(np.float32)
    labels = np.array([0, 3, 1])
    given = (AppleRuntime(predict_of(path), SIGNATURE), CoreMLArtifact(path, SIGNATURE))
    got, expected = (ArtifactDenoiser(each)(sample, 401.0, class_labels=labels) for each in given)
    assert got.shape == expected.shape and np.abs(got - expected).max() < 5e-3


def test_there_is_none_off_macos(path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert load_predict(path) is None and CoreMLBackend().native(path, SIGNATURE) is None


def test_on_macos_the_package_is_given_to_core_ml(path, monkeypatch):
    seen = []

    class MLModel:
        def __init__(self, name):
            seen.append(name)

        def predict(self, inputs):
            return {"noise_pred": 2 * inputs["sample"]}

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(
        sys.modules, "coremltools", types.SimpleNamespace(models=types.SimpleNamespace(MLModel=MLModel))
    )
    sample = np.ones((2, 3, 8, 8), np.float32)
    native = CoreMLBackend().native(path, SIGNATURE)
    assert (native(sample=sample, timestep=np.ones(1, np.float32), class_labels=np.array([0])) == 2).all()
    assert seen == [str(path)]


def test_a_package_that_core_ml_refuses_fails_the_check(path, monkeypatch):
    def refuse(name):
        raise RuntimeError("compiler error")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "coremltools", types.SimpleNamespace(models=types.SimpleNamespace(MLModel=refuse)))
    with pytest.raises(CheckFailed, match=r"Core ML does not load .*compiler error"):
        load_predict(path)


def test_verify_measures_the_difference_from_the_platforms_runtime(w8a8, monkeypatch):
    assert verify_part(w8a8.bundle, "executorch").native_error is None
    backend = BACKENDS["executorch"]

    def with_native(options):
        made = backend(options)
        made.native = lambda path, signature: lambda **inputs: 1.01 * made.load(path, signature)(**inputs)
        return made

    monkeypatch.setitem(BACKENDS, "executorch", with_native)
    assert verify_part(w8a8.bundle, "executorch").native_error == pytest.approx(0.01, rel=1e-4)
