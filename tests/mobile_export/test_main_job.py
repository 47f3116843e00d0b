"""The main job on the bundled trained model: export both targets at w4a8, simulate, evaluate, with promised figures."""

import numpy as np
import pytest

from correction.file import read_correction
from mobile_export.backends.backend import BackendOptions
from mobile_export.backends.coreml.backend import float_outputs
from mobile_export.backends.coreml.stored_codes import compare_codes
from mobile_export.backends.executorch.contents import missing_constants, read_contents
from mobile_export.backends.executorch.support import activations_of
from mobile_export.coreml_simulator.package import read_package
from mobile_export.evaluate.bundle_evaluation import evaluate_all
from mobile_export.export import export, quantize
from mobile_export.export_settings import ExportSettings
from mobile_export.metrics import psnr
from mobile_export.models.diffusion_model import load_model
from mobile_export.part import Job
from mobile_export.quantize.recipe import Recipe
from mobile_export.simulate import simulate
from mobile_export.verify import verify_bundle

pytestmark = pytest.mark.timeout(1800)  # of the fixture that does the whole job, on one core
SHORTCUTS = 8  # whose inputs are not rounded
SETTINGS = ExportSettings(
    Recipe.of("w4a8"),
    "dpmpp-2m",  # as good pictures as DDIM in 50 steps, in 20
    steps=20,
    calibration_samples=32,
    range_samples=6,
    options=BackendOptions(workers=2),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return export("emoji32", tmp_path_factory.mktemp("job") / "emoji32-w4a8", SETTINGS)


@pytest.fixture(scope="module")
def quantized():
    """What was exported, made once more."""
    return quantize(Job.of(load_model("emoji32"), SETTINGS))[0]


@pytest.fixture(scope="module")
def evaluations(bundle):
    counts = {"executorch": 64, "coreml": 24}
    return {name: evaluate_all([bundle], counts[name], targets=(name,), benchmark=False)[0] for name in counts}


def test_the_artifact_is_small_and_wholly_delegated(bundle):
    part, unet = bundle.part("executorch"), bundle.component("executorch")
    parameters = bundle.manifest["model"]["parameters"]
    assert 2e6 <= parameters <= 6e6
    artifact = bundle.artifact_bytes("executorch")
    correction = bundle.manifest["files"][part["correction"]]["bytes"]
    assert artifact <= 1.25 * parameters * 4 / 8
    assert artifact + correction <= 1.3 * parameters * 4 / 8
    assert correction <= 8000
    assert unet["weight_bits_achieved"] < 4.4  # the time path and the shortcuts keep 8 bits
    assert unet["float_layers"] == ["conv_in", "conv_out"]
    assert unet["description"]["delegates"] == 1
    assert unet["description"]["undelegated"] == {"aten::embedding": 1}


def test_the_artifact_holds_the_quantized_models_integers_and_follows_it_in_lock_step(bundle, quantized):
    table, probes = activations_of(quantized.table), quantized.probes
    path = bundle.artifact("executorch")
    assert missing_constants(read_contents(path.read_bytes(), str(path)), table) == []
    parity = bundle.component("executorch")["conversion_parity"]
    assert parity["layers"] == len(table.layers) == parity["quantizations"] + SHORTCUTS
    timesteps = bundle.correction_file("executorch").plan.timestep
    assert parity["timesteps"] == [timesteps[i] for i in (0, 5, 10, 14, 19)] and len(probes) == 20
    assert parity["activation_codes_compared"] > 1e7
    assert parity["worst_code_step"] <= 1 and parity["flip_rate"] < 1e-4
    assert parity["lockstep_output_error"] < 1e-5


def test_the_package_holds_the_same_integers_and_follows_at_every_timestep(bundle, quantized):
    plan, table = bundle.correction_file("coreml").plan, quantized.table
    codes = compare_codes(read_package(bundle.artifact("coreml")).program(), float_outputs(table).layers, "ios18")
    assert codes.wrong == () and codes.equal == codes.total == 4_674_304
    parity = bundle.component("coreml")["conversion_parity"]
    assert parity["layers"] == len(table.layers) == parity["quantizations"] + SHORTCUTS
    assert parity["timesteps"] == plan.timestep.tolist() and parity["activation_codes_compared"] > 1.1e6 * plan.steps
    assert parity["worst_code_step"] <= 1 and parity["flip_rate"] <= 1e-5
    assert parity["output_max_abs"] <= 1e-5 and parity["declared_error"] <= 3e-3
    assert bundle.artifact_bytes("coreml") <= 1.25 * bundle.manifest["model"]["parameters"] * 4 / 8


def test_the_bundle_verifies_and_draws_its_golden_images_again(bundle):
    results = verify_bundle(bundle)
    assert set(results) == {"executorch", "coreml"} and all(each.outputs_equal for each in results.values())
    assert results["executorch"].delegates == 1


@pytest.mark.parametrize(("target", "least_psnr"), [("executorch", 30), ("coreml", 26)])
def test_held_out_images_are_near_to_the_reference_and_the_correction_does_no_harm(
    bundle, evaluations, target, least_psnr
):
    """That it repairs a network that drifts is shown in test_drift.py: this one does little of that."""
    found = evaluations[target]
    assert found.sampler_parity <= 1e-5
    assert found.quantization_error["image_psnr_db"].mean > least_psnr
    gain = found.correction_gain
    assert gain["image_psnr_gain_db"].high > 0 and gain["image_psnr_db"].mean > least_psnr
    correction = read_correction(bundle.path / target / "correction.safetensors").correction
    assert np.array_equal(found.tables["input_gain"], correction.input_gain)


def test_simulation_draws_pictures_that_differ_by_seed_and_class_and_not_by_count(bundle):
    images, labels = simulate(bundle, 3, seed=7)
    assert labels == ["faces", "animals", "food"] and np.isfinite(images).all()
    assert (images.std((1, 2, 3)) > 0.1).all()
    again, _ = simulate(bundle, 1, seed=7)
    assert np.array_equal(again[0], images[0])
    other, _ = simulate(bundle, 1, seed=8)
    assert psnr(other, images[:1])[0] < 25
