"""A Core ML network with too many weights for one package: an export divides it, and everything else goes on."""

import json
import shutil

import numpy as np
import pytest

from correction import CheckFailed, UsageError
from mobile_export.backends.backend import BackendOptions
from mobile_export.backends.coreml.backend import CoreMLBackend
from mobile_export.backends.coreml.divided import CHUNKS, packages
from mobile_export.bundle import Bundle
from mobile_export.coreml_simulator.package import read_package
from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.inspection import part_figures
from mobile_export.quantize.recipe import Recipe
from mobile_export.simulate import simulate
from mobile_export.verify import verify_bundle

LIMIT = 0.012  # megabytes; the tiny network has about 20 kB at w8


def settings(**options) -> ExportSettings:
    return ExportSettings(
        Recipe.of("w8a16"),
        steps=3,
        calibration_samples=4,
        range_samples=2,
        targets=("coreml",),
        options=BackendOptions(**options),
    )


@pytest.fixture(scope="module")
def whole(model_folder, tmp_path_factory):
    return export(str(model_folder), tmp_path_factory.mktemp("whole") / "b", settings())


@pytest.fixture(scope="module")
def divided(model_folder, tmp_path_factory):
    return export(str(model_folder), tmp_path_factory.mktemp("divided") / "b", settings(chunk_megabytes=LIMIT))


def test_each_package_is_within_the_limit_and_none_is_left_over(divided):
    assert divided.component("coreml")["artifact"] == f"coreml/unet{CHUNKS}"
    assert not (divided.path / "coreml/unet.mlpackage").exists()
    chunks = packages(divided.artifact("coreml"))
    assert [chunk.name for chunk in chunks] == [f"unet-{k + 1}.mlpackage" for k in range(len(chunks))]
    assert len(chunks) >= 2
    for chunk in chunks:
        sizes = read_package(chunk).sizes
        assert 0 < sizes["Data/com.apple.CoreML/weights/weight.bin"] <= LIMIT * 1e6


def test_it_draws_what_the_whole_draws_to_the_bit(whole, divided):
    images = [simulate(bundle, 2, seed=1)[0] for bundle in (whole, divided)]
    assert np.array_equal(*images)
    assert verify_bundle(divided)["coreml"].outputs_equal


def test_the_figures_say_so(divided):
    figures = part_figures(divided, "coreml")
    assert "Divided into" in figures["notes"]
    assert figures["artifact bytes"] == sum(
        p.stat().st_size for p in divided.artifact("coreml").rglob("*") if p.is_file()
    )


def test_a_missing_chunk_is_noticed(divided, tmp_path):
    folder = shutil.copytree(divided.path, tmp_path / "b")
    chunk = packages(folder / "coreml" / f"unet{CHUNKS}")[0]
    with pytest.raises(CheckFailed, match=r"unet-1\.mlpackage.* is missing"):
        shutil.rmtree(chunk)
        Bundle.open(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if "unet-1." not in name}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckFailed, match=r"numbered from 1, it has 2|solved for another artifact|artifact"):
        simulate(Bundle.open(folder), 1, seed=0)


def test_a_folder_of_no_packages_is_refused(tmp_path):
    with pytest.raises(CheckFailed, match="must hold packages numbered from 1, it has none"):
        packages(tmp_path)


def test_what_cannot_be_divided_so_is_an_error_and_publishes_nothing(model_folder, tmp_path):
    with pytest.raises(UsageError, match=r"weights"):
        export(str(model_folder), tmp_path / "b", settings(chunk_megabytes=1e-4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_of_nothing_is_refused(limit):
    with pytest.raises(UsageError, match="chunk megabytes must be above 0"):
        BackendOptions(chunk_megabytes=limit)


def test_chunks_that_compute_something_else_are_not_shipped(whole, model, tmp_path, monkeypatch):
    from mobile_export.backends.backend import Probe
    from mobile_export.backends.coreml import backend

    path = shutil.copytree(whole.artifact("coreml"), tmp_path / "unet.mlpackage")
    original = backend.CoreMLArtifact

    class Different(original):
        def run(self, inputs, batch):
            return super().run(inputs, batch) + (self.path.suffix == CHUNKS)

    monkeypatch.setattr(backend, "CoreMLArtifact", Different)
    component = model.component("unet")
    probe = Probe({name: tensor.numpy() for name, tensor in component.inputs.items()})
    with pytest.raises(CheckFailed, match="computes something else"):
        CoreMLBackend(BackendOptions(chunk_megabytes=LIMIT)).finish(component, path, [probe])
