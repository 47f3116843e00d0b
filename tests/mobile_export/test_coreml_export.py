"""Exports to Core ML as a whole: what stops them, and that nothing is published then."""

import pytest

from correction import CheckFailed, UsageError
from mobile_export.backends.backend import BackendOptions
from mobile_export.backends.coreml.backend import CoreMLBackend
from mobile_export.bundle import Bundle
from mobile_export.coreml_simulator.ops.registry import OPS
from mobile_export.coreml_simulator.package import read_package
from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import matrix_layers

PREFIX = "com.github.mobile-export"


def settings(recipe: Recipe, **options: str) -> ExportSettings:
    return ExportSettings(
        recipe,
        steps=2,
        calibration_samples=4,
        range_samples=2,
        targets=("coreml",),
        options=BackendOptions(**options),
    )


def test_an_operation_that_the_simulator_lacks_stops_the_export_and_is_named(model_folder, tmp_path, monkeypatch):
    monkeypatch.delitem(OPS, "silu")
    with pytest.raises(CheckFailed, match=r"silu"):
        export(str(model_folder), tmp_path / "b", settings(Recipe.of("w4a16")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe.of("w3a16"), r"^w3a16: iOS 17 has palettes of 1, 2, 4, 6, 8 bits, not 3"),
        (Recipe.of("w4a16", "block16"), r"^w4a16: iOS 17 has no scale per block"),
        (Recipe.of("w4a16", "palette16"), r"^w4a16: iOS 17 has one palette for a whole layer, not one for 16"),
        (
            Recipe.from_dict({"precision": "w4a16", "layers": {"conv_in": "w2 palette4"}}),
            r"^conv_in: iOS 17 has one palette",
        ),
    ],
)
def test_what_ios17_lacks_is_refused_before_any_work(recipe, message):
    with pytest.raises(UsageError, match=message):
        settings(recipe, ios="ios17")
    CoreMLBackend(BackendOptions(ios="ios18")).require_supported(recipe)


@pytest.mark.parametrize("options", [{"ios": "ios17"}, {"compute": "ane"}])
def test_a_bundle_says_which_form_it_holds(model_folder, model, tmp_path, options):
    bundle = export(str(model_folder), tmp_path / "b", settings(Recipe.of("w4a8"), **options))
    package = read_package(bundle.artifact("coreml"))
    assert package.specification_version == (8 if "ios" in options else 9)
    assert package.metadata.user_defined[f"{PREFIX}.compute"] == options.get("compute", "all")
    assert package.metadata.user_defined[f"{PREFIX}.precision"] == "w4a8"
    assert package.metadata.user_defined[f"{PREFIX}.model_sha256"] == bundle.manifest["model"]["digest"]
    parity = bundle.component("coreml")["conversion_parity"]
    assert parity["timesteps"] == [999.0, 499.0]
    shortcuts = sum(name.endswith("conv_shortcut") for name, _ in matrix_layers(model.unet))
    assert parity["quantizations"] == parity["layers"] - shortcuts > 10 and shortcuts > 0


def test_the_correction_belongs_to_the_package_and_not_to_its_random_ids(model_folder, tmp_path):
    bundle = export(str(model_folder), tmp_path / "b", settings(Recipe.of("w8a16")))
    file = bundle.correction_file("coreml")
    assert file.artifact_sha256 == read_package(bundle.artifact("coreml")).digest == bundle.artifact_sha256("coreml")
    weights = bundle.artifact("coreml") / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckFailed, match=r"weight\.bin was changed"):
        Bundle.open(bundle.path)
    assert read_package(bundle.artifact("coreml")).digest != file.artifact_sha256
