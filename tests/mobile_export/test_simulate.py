"""Simulation: an image depends on its seed and number alone; guidance is two calls; no correction is the identity."""

import numpy as np
import pytest
import tiny

from correction import Correction, UsageError
from mobile_export.batch import make_batch, run
from mobile_export.progress import Progress
from mobile_export.simulate import bundle_request, bundle_unet, draw, simulate
from mobile_export.subjects import Subjects


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
    with pytest.raises(UsageError, match="unknown class 'cat': this model has no classes"):
        simulate(w8a8.bundle, 1, 0, "cat")


def test_subjects():
    subjects = Subjects.of_classes(["a", "b"], 2, 3.0)
    assert subjects.turn(range(3)) == [0, 1, 0] and subjects.index("b") == 1
    assert subjects.rows([1, 0, 1])["class_labels"].tolist() == [1, 0, 1]
    assert subjects.null["class_labels"].tolist() == [2] and subjects.names == ("a", "b")
    plain = Subjects.of_classes([], None)
    assert plain.names == ("",) and plain.rows([0, 0]) == {} and plain.turn(range(2)) == [0, 0]
    with pytest.raises(UsageError, match="unknown class 'c': this model has a, b"):
        subjects.index("c")
    constant = subjects.with_constant("timestep_cond", np.ones((1, 4), np.float32))
    assert constant.rows([0, 1, 1])["timestep_cond"].shape == (3, 4)
    with pytest.raises(UsageError, match="class_labels has 1 rows for 2 subjects"):
        Subjects(("a", "b"), {"class_labels": np.zeros(1, np.int64)})


def test_the_digest_of_subjects_tells_them_apart():
    given = [Subjects.of_classes(["a", "b"], null, scale) for null, scale in ((2, 1), (2, 2), (3, 2), (None, 1))]
    assert len({each.digest() for each in (*given, Subjects.of_classes(["a", "c"], 2, 1))}) == 5
    assert given[0].digest() == Subjects.of_classes(["a", "b"], 2, 1).digest()


@pytest.mark.parametrize("count", [0, -1, 4097])
def test_counts_out_of_range_are_refused(w4a8, count):
    with pytest.raises(UsageError, match=f"the number of images must be 1 to 4096, got {count}"):
        simulate(w4a8.bundle, count, 0)


def test_progress_is_told_after_each_image(w8a8):
    told = []

    class Told(Progress):
        def advance(self, done, total):
            told.append((done, total))

    simulate(w8a8.bundle, 3, 0, progress=Told())
    assert told == [(k, 15) for k in range(1, 16)]  # 3 images of 5 steps


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
    denoiser = bundle_unet(w8a8.bundle, "executorch")
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
    assert Subjects.of_classes(["a"], 3).guided(denoiser) is denoiser
    assert Subjects.of_classes(["a"], None, 1).guided(denoiser) is denoiser


def test_guidance_calls_twice_and_moves_away_from_the_null_class():
    denoiser = Counting()
    x = np.ones((2, 3, 2, 2), np.float32)
    guided = Subjects.of_classes(["a", "b"], 9, 3.0).guided(denoiser)
    output = guided(x, 5.0, class_labels=np.array([1, 2]))
    assert denoiser.labels == [[9, 9], [1, 2]]
    np.testing.assert_allclose(output[:, 0, 0, 0], [0.1 + 9 + 3 * (1 - 9), 0.1 + 9 + 3 * (2 - 9)], rtol=1e-6)


def test_guidance_needs_a_null_class():
    with pytest.raises(UsageError, match=r"guidance 2\.5 needs a null class, .*: use guidance 1"):
        Subjects.of_classes(["a"], None, 2.5)


def test_a_request_with_guidance_is_two_calls_and_has_no_correction_of_another_guidance(w4a8):
    bundle = w4a8.bundle
    found = draw(bundle, bundle_request(bundle, 2, guidance=4.0, seed=3))
    subjects = Subjects.of_classes(tiny.CLASSES, tiny.NULL_LABEL, 4.0)
    batch = make_batch(3, "simulation", [0, 1], (3, 8, 8), subjects.rows([0, 1]))
    plan = bundle.correction_file("executorch").plan
    by_hand = run(plan, subjects.guided(bundle_unet(bundle, "executorch")), batch)
    assert np.array_equal(found.images, by_hand)
    assert found.uncorrected == "it was solved for guidance 1.0" and found.names == ("cat", "dog")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps": 4}, "it was solved for steps 6"),
        ({"sampler": "euler"}, "it was solved for sampler ddim"),
        ({"spacing": "leading"}, "it was solved for trailing timesteps"),
    ],
)
def test_a_correction_is_left_out_where_it_was_not_solved_for_the_request(w4a8, changes, reason):
    found = draw(w4a8.bundle, bundle_request(w4a8.bundle, 1, **changes))
    assert found.uncorrected == reason and np.isfinite(found.images).all()


# batches


def test_a_batch_is_its_samples():
    whole = make_batch(4, "evaluation", range(5), (3, 2, 2), {"class_labels": np.array([0, 1, 2, 0, 1])})
    assert np.array_equal(whole.noise[3:], make_batch(4, "evaluation", [3, 4], (3, 2, 2), None).noise)
    part = whole.rows(slice(1, 3))
    assert np.array_equal(part.noise, whole.noise[1:3]) and part.conditioning["class_labels"].tolist() == [1, 2]
    assert np.array_equal(part.step_noise(6), whole.step_noise(6)[1:3])
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
