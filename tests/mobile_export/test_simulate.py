"""Simulation: an image depends on its seed and number alone; guidance is two calls; no correction is the identity."""

import numpy as np
import pytest
import tiny

from correction import Correction, GuidedDenoiser, UsageError
from mobile_export.backends import get_backend
from mobile_export.bundle import Bundle
from mobile_export.simulate import bundle_denoiser, bundle_labels, guided, make_batch, run, simulate


@pytest.fixture(scope="module")
def four(w4a8):
    return simulate(w4a8.bundle, 4, 7)


def test_images_and_their_classes(four):
    images, names = four
    assert images.shape == (4, 3, 8, 8) and images.dtype == np.float32
    assert names == ["cat", "dog", "fox", "cat"]
    assert len({image.tobytes() for image in images}) == 4


def test_sample_k_does_not_depend_on_how_many_there_are(w4a8, four):
    assert np.array_equal(simulate(w4a8.bundle, 2, 7)[0], four[0][:2])


@pytest.mark.parametrize("which", ["w4a8", "w8a8"])
def test_a_seed_is_an_image(which, request):
    bundle = request.getfixturevalue(which).bundle
    one = simulate(bundle, 1, 5)[0]
    assert np.array_equal(one, simulate(bundle, 1, 5)[0])
    assert not np.array_equal(one, simulate(bundle, 1, 6)[0])


def test_a_class_by_name(w4a8, four):
    images, names = simulate(w4a8.bundle, 2, 7, "dog")
    assert names == ["dog", "dog"]
    assert np.array_equal(images[1], four[0][1])  # sample 1 was a dog already
    assert not np.array_equal(images[0], four[0][0])


def test_an_unconditional_bundle_has_no_names(w8a8):
    images, names = simulate(w8a8.bundle, 2, 0)
    assert images.shape == (2, 3, 8, 8) and names == ["", ""]
    with pytest.raises(UsageError, match="unknown class 'cat': this bundle has no classes"):
        simulate(w8a8.bundle, 1, 0, "cat")


def test_labels():
    model = {"classes": ["a", "b"]}
    assert bundle_labels(model, 3, None) == [0, 1, 0]
    assert bundle_labels(model, 3, "b") == [1, 1, 1]
    assert bundle_labels({"classes": []}, 3, None) is None
    with pytest.raises(UsageError, match="unknown class 'c': this bundle has a, b"):
        bundle_labels(model, 3, "c")


@pytest.mark.parametrize("count", [0, -1, 4097])
def test_counts_out_of_range_are_refused(w4a8, count):
    with pytest.raises(UsageError, match=f"the number of images must be 1 to 4096, got {count}"):
        simulate(w4a8.bundle, count, 0)


def test_progress_is_told_after_each_image(w8a8):
    told = []
    simulate(w8a8.bundle, 3, 0, on_sample=lambda *values: told.append(values))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("which", ["w4a8", "w8a8"])
def test_without_correction_equals_the_identity_to_the_bit(which, request, copied):
    exported = request.getfixturevalue(which)
    folder, steps = copied(exported), exported.settings.steps
    plain = simulate(exported.bundle, 2, 3, corrected=False)[0]
    assert np.array_equal(simulate(tiny.with_correction(folder, Correction.identity(steps, 3)), 2, 3)[0], plain)
    corrected = tiny.with_correction(folder, tiny.some_correction(steps))
    assert not np.array_equal(simulate(corrected, 2, 3)[0], plain)
    assert np.array_equal(simulate(corrected, 2, 3, corrected=False)[0], plain)


def test_a_simulation_is_the_device_loop_on_the_artifact(w8a8):
    """Sample 1 by hand, from the parts: noise stream, plan, artifact, correction."""
    file = w8a8.bundle.correction_file("executorch")
    batch = make_batch(9, "simulation", [1], (3, 8, 8), None)
    denoiser = get_backend("executorch").load(w8a8.bundle.artifact("executorch"))
    by_hand = run(file.plan, denoiser, batch, file.correction)
    assert file.plan.needs_noise
    assert np.array_equal(simulate(w8a8.bundle, 2, 9)[0][1:], by_hand)


# guidance


class Counting:
    def __init__(self):
        self.labels = []

    def __call__(self, sample, timestep, /, class_labels):
        self.labels.append(class_labels.tolist())
        return sample * np.float32(0.1) + class_labels[:, None, None, None].astype(np.float32)


def test_guidance_1_is_the_denoiser_itself():
    denoiser = Counting()
    assert guided(denoiser, 1.0, 3) is denoiser and guided(denoiser, 1, None) is denoiser


def test_guidance_calls_twice_and_moves_away_from_the_null_class():
    denoiser = Counting()
    x = np.ones((2, 3, 2, 2), np.float32)
    output = guided(denoiser, 3.0, 9)(x, 5.0, class_labels=np.array([1, 2]))
    assert denoiser.labels == [[9, 9], [1, 2]]
    np.testing.assert_allclose(output[:, 0, 0, 0], [0.1 + 9 + 3 * (1 - 9), 0.1 + 9 + 3 * (2 - 9)], rtol=1e-6)


def test_guidance_needs_a_null_class():
    with pytest.raises(UsageError, match=r"guidance 2\.5 needs a null class, .*: use guidance 1"):
        guided(Counting(), 2.5, None)


def test_a_bundle_is_run_with_the_guidance_of_its_manifest(w4a8):
    manifest = {**w4a8.bundle.manifest, "guidance": 4.0}
    denoiser = bundle_denoiser(Bundle(w4a8.bundle.path, manifest), "executorch")
    assert isinstance(denoiser, GuidedDenoiser)
    plain = bundle_denoiser(w4a8.bundle, "executorch")
    batch = make_batch(0, "simulation", [0], (3, 8, 8), None)
    m, null = (plain(batch.noise, 500.0, class_labels=np.array([label])) for label in (1, 3))
    expected = null + np.float32(4) * (m - null)
    assert np.array_equal(denoiser(batch.noise, 500.0, class_labels=np.array([1])), expected)


# batches


def test_a_batch_is_its_samples():
    whole = make_batch(4, "evaluation", range(5), (3, 2, 2), [0, 1, 2, 0, 1])
    assert np.array_equal(whole.noise[3:], make_batch(4, "evaluation", [3, 4], (3, 2, 2), None).noise)
    part = whole.rows(slice(1, 3))
    assert np.array_equal(part.noise, whole.noise[1:3]) and part.labels.tolist() == [1, 2]
    assert np.array_equal(part.step_noise(6), whole.step_noise(6)[1:3])
    assert part.conditioning["class_labels"].dtype == np.int64
    assert make_batch(4, "evaluation", [0], (1,), None).conditioning == {}


def test_streams_share_no_noise():
    """Calibration, evaluation and simulation: also where samples and seeds are the same, at the start and at steps."""
    streams = ("calibration", "evaluation", "simulation")
    batches = [make_batch(0, stream, range(50), (3, 8, 8), None) for stream in streams]
    arrays = [array for b in batches for array in (b.noise, b.step_noise(0), b.step_noise(1))]
    values = np.concatenate([array.reshape(-1) for array in arrays])
    rows = {row.tobytes() for array in arrays for row in array}
    assert len(rows) == 50 * len(arrays)
    correlation = np.corrcoef([array.reshape(-1) for array in arrays])
    assert np.abs(correlation - np.eye(len(arrays))).max() < 0.06  # 6 / sqrt(9600)
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02
