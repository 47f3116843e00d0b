"""Golden records: replayed in lock-step on the artifact, and told apart where anything computes something else."""

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from correction import CheckFailed
from mobile_export import verify
from mobile_export.bundle import Bundle
from mobile_export.simulate import bundle_unet
from mobile_export.verify import verify_bundle


@pytest.fixture
def folder(copied, w4a8):
    return copied(w4a8)


def test_another_correction_for_the_same_artifact_is_told_by_the_golden_record(folder, w4a8):
    tiny.with_correction(folder, tiny.some_correction(w4a8.settings.steps))
    with pytest.raises(CheckFailed, match=r"another sample than at the export: a value differs by [\d.e-]+, 0 exp"):
        verify_bundle(Bundle.open(folder))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ((0, 0, 0.3, 0, 0, 0), r"16\.5 dB at step 2, at least 20 dB expected; 83% of the steps have 35 dB"),
        ((0.05, 0, 0.06, 0.05, 0.05, 0), r"30\.5 dB at step 2, .*; 33% of the steps have 35 dB, at least half"),
        ((0.05, 0, 0.06, 0.05, 0, 0), None),
    ],
)
def test_an_artifact_that_computes_something_else_is_told_with_the_step(folder, offsets, message, monkeypatch):
    """Outputs that are off, as those of another machine may be, at every step by so much."""

    def elsewhere(bundle, target):
        network, left = bundle_unet(bundle, target), iter(offsets)
        return lambda sample, timestep, **given: network(sample, timestep, **given) + np.float32(next(left))

    monkeypatch.setattr(verify, "bundle_unet", elsewhere)
    bundle = Bundle.open(folder)
    if message is None:
        found = verify_bundle(bundle)["executorch"]
        assert not found.outputs_equal and found.sample_error == 0
        return
    with pytest.raises(CheckFailed, match=f"computes something else than when it was exported: {message}"):
        verify_bundle(bundle)


def change_golden(folder, change):
    golden = load_file(folder / "executorch/golden.safetensors")
    change(golden)
    save_file(golden, folder / "executorch/golden.safetensors")
    tiny.renew_digest(folder, "executorch/golden.safetensors")
    return Bundle.open(folder)


def test_golden_noise_of_another_generator_is_told(folder):
    bundle = change_golden(folder, lambda golden: golden.update(noise=golden["noise"] + np.float32(1e-6)))
    with pytest.raises(CheckFailed, match="the noise generator gives other numbers"):
        verify_bundle(bundle)


def test_a_golden_record_of_another_plan_is_refused(folder):
    bundle = change_golden(folder, lambda golden: golden.update(outputs=golden["outputs"][1:]))
    with pytest.raises(CheckFailed, match=r"holds outputs of shape \(5, 1, 3, \d+, \d+\), expected \(6, 1, 3"):
        verify_bundle(bundle)


@pytest.mark.parametrize("key", ["noise", "outputs", "sample_corrected", "sample_uncorrected"])
def test_a_golden_record_that_lacks_something_is_refused(folder, key):
    with pytest.raises(CheckFailed, match=f"is no golden record of this bundle, {key} is missing: export it again"):
        verify_bundle(change_golden(folder, lambda golden: golden.pop(key)))


def test_a_golden_record_that_the_manifest_does_not_name_is_refused(folder):
    tiny.change_manifest(folder, lambda m: m["files"].pop("executorch/golden.safetensors"))
    with pytest.raises(CheckFailed, match=r"parts\.executorch\.golden is .*, which is not in the list of files"):
        Bundle.open(folder)


def test_a_golden_record_that_is_no_safetensors_is_refused(folder):
    (folder / "executorch/golden.safetensors").write_bytes(b"\xff" * 100)
    tiny.renew_digest(folder, "executorch/golden.safetensors")
    with pytest.raises(CheckFailed, match=r"golden\.safetensors cannot be read .*; export the bundle again"):
        verify_bundle(Bundle.open(folder))
