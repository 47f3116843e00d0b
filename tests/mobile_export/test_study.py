"""A study: the same noise for all, calibration on other noise, what was found kept, rows that say what happened."""

import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from correction import CheckFailed, UsageError, initial_noise, sample
from correction.file import read_correction
from correction.schedulers import make_plan
from mobile_export.evaluate import study as study_module
from mobile_export.evaluate.comparison import compare
from mobile_export.evaluate.comparison_pictures import write_pictures
from mobile_export.evaluate.comparison_table import comparison_tables, write_into
from mobile_export.evaluate.frechet import FeatureStatistics
from mobile_export.evaluate.network import Network
from mobile_export.evaluate.outcome import OutcomeKey
from mobile_export.evaluate.study import CALIBRATION, EVALUATION, Study
from mobile_export.evaluate.study_settings import Sampling, StudySettings
from mobile_export.evaluate.tally import Tally, ssim
from mobile_export.metrics import psnr
from mobile_export.models.diffusion_model import TorchDenoiser
from mobile_export.progress import Progress
from mobile_export.subjects import model_subjects

SETTINGS = StudySettings((Sampling("ddim", 4), Sampling("ddim-eta1", 3)), ("d2-dpm", "ptqd"), 18, 8)


class Skewed:
    """The reference with an error that a correction can find."""

    def __init__(self, model, gain=0.9, bias=0.05):
        self.reference, self.gain, self.bias, self.calls = TorchDenoiser(model.unet), gain, bias, 0

    def __call__(self, sample, timestep, /, **conditioning):
        self.calls += len(sample)
        return (self.gain * self.reference(sample, timestep, **conditioning) + self.bias).astype(np.float32)


class Bent(Skewed):
    """With an error that a correction cannot undo, so that samples differ and input tables have something to do."""

    def __call__(self, sample, timestep, /, **conditioning):
        output = super().__call__(sample, timestep, **conditioning)
        return output + np.float32(0.1) * output**2


def study(model, folder, network=None, settings=SETTINGS, progress=None):
    network = network or Skewed(model)
    networks = [Network("skewed", network, "0" * 64, 4)]
    return Study(model, networks, model_subjects(model, (), 1.0), settings, folder, progress or Progress())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def outcomes(model, folder):
    return study(model, folder).outcomes()


def test_every_network_sampling_and_method_has_a_row(outcomes):
    expected = [("reference", s, "none") for s in ("ddim:4", "ddim-eta1:3")]
    expected += [("skewed", s, m) for s in ("ddim:4", "ddim-eta1:3") for m in ("none", "d2-dpm", "ptqd")]
    assert sorted(map(dataclasses.astuple, outcomes)) == sorted(expected)
    for key, outcome in outcomes.items():
        steps = int(key.sampling.split(":")[1])
        assert outcome.psnr.shape == outcome.ssim.shape == (18,) and outcome.features.shape == (18, 64)
        assert outcome.output_snr.shape == outcome.sample_snr.shape == (steps,)
        assert outcome.mean_drift.shape == outcome.std_ratio.shape == (steps, 3)
        assert outcome.images.shape == (8, 3, 8, 8)


def test_the_reference_is_equal_to_itself(outcomes):
    outcome = outcomes[OutcomeKey("reference", "ddim:4", "none")]
    assert (outcome.psnr == 200).all() and (outcome.sample_snr == 200).all()
    assert (outcome.mean_drift == 0).all() and (outcome.std_ratio == 1).all()


def test_a_row_says_what_sampling_again_gives(outcomes, model):
    """Written without the study: the noise, the loop, the figures."""
    plan = make_plan("ddim", model.scheduler_config, 4)
    noise, labels = initial_noise(0, "evaluation", range(18), (3, 8, 8)), {"class_labels": np.arange(18) % 3}
    seen = {"ours": [], "exact": []}

    def draw(name, network):
        def keep(i, x, m, y):
            seen[name].append((x, m))

        return sample(plan, network, noise, None, None, labels, keep)

    ours, exact = draw("ours", Skewed(model)), draw("exact", TorchDenoiser(model.unet))
    outcome = outcomes[OutcomeKey("skewed", "ddim:4", "none")]
    np.testing.assert_allclose(outcome.psnr, psnr(np.clip(ours, -1, 1), np.clip(exact, -1, 1)), rtol=1e-3)
    for i in range(4):
        e, ours_e = seen["exact"][i][1].astype(np.float64), seen["ours"][i][1]
        assert outcome.output_snr[i] == pytest.approx(10 * np.log10((e**2).sum() / ((ours_e - e) ** 2).sum()), rel=1e-3)
    np.testing.assert_allclose(outcome.mean_drift[-1], (ours - exact).mean((0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(outcome.std_ratio[-1], ours.std((0, 2, 3)) / exact.std((0, 2, 3)), rtol=1e-3)


def test_the_correction_helps_and_is_counted(outcomes):
    """A gain and a bias are undone by an affine correction of the output, all but for float32."""
    plain, fixed = (outcomes[OutcomeKey("skewed", "ddim:4", method)] for method in ("none", "d2-dpm"))
    assert fixed.psnr.mean() > plain.psnr.mean() + 40
    assert plain.kept == plain.tables == plain.correction_bytes == 0
    assert fixed.kept == 4 and fixed.tables == 2 and fixed.correction_bytes == 2 * 4 * 4 * 3


def test_methods_share_what_they_ask_of_a_network_that_is_not_corrected(model, tmp_path):
    """Trajectories without a correction are the same for all; the second method only asks for its own."""

    def calls(*methods):
        network, settings = Skewed(model), StudySettings((Sampling("ddim", 4),), methods, 2, 8)
        study(model, tmp_path / "-".join(methods), network, settings).outcomes()
        return network.calls

    alone = [calls("ptqd"), calls("d2-dpm")]
    judged, calibrated = 2 * 4, 8
    # Of each step: on the corrected trajectories; of each but the first: on those without a correction.
    assert alone == [2 * judged + 4 * calibrated + 3 * calibrated] * 2
    shared = calibrated + 3 * calibrated  # the start, and every step without a correction
    assert calls("ptqd", "d2-dpm") == sum(alone) - judged - shared


def test_corrections_that_change_nothing_are_sampled_with_none(model, tmp_path):
    """All of a network without an error are dropped."""

    def found(*methods):
        network, settings = Skewed(model, 1.0, 0.0), StudySettings((Sampling("ddim", 4),), methods, 18, 8)
        return network, study(model, tmp_path / "-".join(methods), network, settings).outcomes()

    (alone, _), (network, outcomes) = found("tac"), found("tac", "affine", "d2-dpm")
    assert network.calls == alone.calls
    rows = [outcomes[OutcomeKey("skewed", "ddim:4", method)] for method in ("none", "tac", "affine", "d2-dpm")]
    assert all(row.kept == 0 and np.array_equal(row.psnr, rows[0].psnr) for row in rows)


def test_calibration_and_evaluation_share_no_noise(model, folder, monkeypatch):
    """Of all noise that a study draws, no sample of one stream is one of the other's."""
    drawn = {CALIBRATION: set(), EVALUATION: set()}
    real = study_module.make_batch

    def noticing(seed, stream, *rest):
        batch = real(seed, stream, *rest)
        fresh = [batch.step_noise(i) for i in range(4)]
        drawn[stream] |= {row.tobytes() for rows in (batch.noise, *fresh) for row in rows}
        return batch

    monkeypatch.setattr(study_module, "make_batch", noticing)
    study(model, folder / "noticed").outcomes()
    assert len(drawn[CALIBRATION]) == 8 * 5 and len(drawn[EVALUATION]) == 18 * 5
    assert not drawn[CALIBRATION] & drawn[EVALUATION]


def test_what_was_found_is_not_measured_again(model, outcomes, folder):
    network = Skewed(model)
    again = study(model, folder, network).outcomes()
    assert network.calls == 0 and again.keys() == outcomes.keys()
    for key, outcome in again.items():
        for field in dataclasses.fields(outcome):
            np.testing.assert_array_equal(getattr(outcome, field.name), getattr(outcomes[key], field.name))


def test_a_further_method_measures_its_own_row_alone(model, outcomes, folder):
    more = dataclasses.replace(SETTINGS, methods=("d2-dpm", "ptqd", "ibc"), samplings=SETTINGS.samplings[:1])
    network = Skewed(model)
    found = study(model, folder, network, more).outcomes()
    assert set(found) - set(outcomes) == {OutcomeKey("skewed", "ddim:4", "ibc")}
    assert network.calls < 18 * 4 + 4 * (3 * 8)  # its own row, and calibration


def test_an_interrupted_study_goes_on(model, tmp_path, outcomes):
    class Stops(Progress):
        def stage(self, title):
            if title.startswith("ddim:4: "):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study(model, tmp_path, progress=Stops()).outcomes()
    assert len(list(tmp_path.glob("*.correction"))) == 2  # both were solved
    found = study(model, tmp_path).outcomes()
    for key, outcome in outcomes.items():
        np.testing.assert_array_equal(found[key].psnr, outcome.psnr)


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_a_study_that_was_interrupted_on_held_out_seeds_goes_on_at_the_row_where_it_was(
    model, tmp_path, outcomes, rows
):
    class Stops(Progress):
        measuring = False

        def stage(self, title):
            self.measuring = " rows on " in title

        def advance(self, done, total):
            if self.measuring and done == rows:
                assert total == 8  # four rows, twice: 16 seeds and 2
                raise KeyboardInterrupt

    settings = dataclasses.replace(SETTINGS, samplings=SETTINGS.samplings[:1])
    with pytest.raises(KeyboardInterrupt):
        study(model, tmp_path, settings=settings, progress=Stops()).outcomes()
    network, done = Skewed(model), []
    progress = Progress()
    progress.advance = lambda *so_far: done.append(so_far)
    found = study(model, tmp_path, network, settings, progress).outcomes()
    assert done == [(row, 8) for row in range(rows + 1, 9)]
    seeds = [0, 16, 16, 16, 0, 2, 2, 2]  # of the network; the reference's rows come first
    assert network.calls == 4 * sum(seeds[rows:])
    for key, outcome in found.items():
        for field in dataclasses.fields(outcome):
            np.testing.assert_array_equal(getattr(outcome, field.name), getattr(outcomes[key], field.name))
    assert list(tmp_path.glob("*.tally")) == []


def test_a_damaged_tally_is_named(model, tmp_path):
    path = tmp_path / "some.tally"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckFailed, match=r"some\.tally cannot be read .* delete it"):
        Tally.load(path, "mark", lambda images: images)


def test_a_damaged_outcome_is_named(model, outcomes, folder, tmp_path):
    for path in folder.glob("*.outcome"):
        (tmp_path / path.name).write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckFailed, match=r"\.outcome cannot be read .* delete it"):
        study(model, tmp_path).outcomes()


def test_the_oracle_is_solved_on_the_evaluation_noise(model, tmp_path, monkeypatch):
    streams = []
    real = study_module.make_batch
    monkeypatch.setattr(study_module, "make_batch", lambda s, stream, *r: streams.append(stream) or real(s, stream, *r))
    settings = dataclasses.replace(SETTINGS, methods=("oracle",), samplings=SETTINGS.samplings[:1])
    found = study(model, tmp_path, Bent(model), settings).outcomes()
    assert set(streams) == {EVALUATION}
    assert found[OutcomeKey("skewed", "ddim:4", "oracle")].tables == 4


def test_less_noise_is_sampled_with_less_noise(model, outcomes, folder):
    """What PTQD leaves is taken from the fresh noise of a stochastic sampler; DDIM's plan is the scheduler's own."""
    plans = [read_correction(path).plan for path in folder.glob("*.correction")]
    own = {name: make_plan(name, model.scheduler_config, steps) for name, steps in (("ddim", 4), ("ddim-eta1", 3))}
    stochastic = [plan.sigma for plan in plans if plan.steps == 3]
    less = [bool((sigma[:-1] < own["ddim-eta1"].sigma[:-1] - 1e-3).any()) for sigma in stochastic]
    assert sorted(less) == [False, True]  # D2-DPM leaves nothing here, PTQD's gain never grows
    assert all(plan.digest() == own["ddim"].digest() for plan in plans if plan.steps == 4)


def test_comparisons_are_paired(outcomes):
    rows = compare(outcomes, "d2-dpm", None)
    key = OutcomeKey("skewed", "ddim:4", "ptqd")
    plain, usual, ptqd = (outcomes[dataclasses.replace(key, method=m)].psnr for m in ("none", "d2-dpm", "ptqd"))
    assert rows[key].gain.mean == pytest.approx((ptqd - plain).mean())
    assert rows[key].ahead.mean == pytest.approx((usual - ptqd).mean())
    assert rows[dataclasses.replace(key, method="d2-dpm")].ahead is None
    assert (
        rows[key].to_real is rows[key].to_reference is rows[key].nearer is rows[key].closed is None
    )  # 18 seeds are too few
    assert not any(key.network == "reference" for key in rows)


def test_distances_need_enough_seeds_and_the_gap_is_that_of_no_correction(outcomes):
    random = np.random.default_rng(0)

    def moved(outcome, shift):
        many = {name: np.tile(getattr(outcome, name), 8) for name in ("psnr", "ssim")}
        return dataclasses.replace(outcome, features=base + shift, **many)

    base = random.standard_normal((144, 64))
    real = FeatureStatistics.of(base - 0.5)
    shifts = {"none": 1.0, "d2-dpm": 0.5, "ptqd": 0.0}
    enlarged = {
        key: moved(outcome, shifts[key.method] if key.network == "skewed" else 0.0) for key, outcome in outcomes.items()
    }
    rows = compare(enlarged, "d2-dpm", real)
    squared = {name: 64 * (0.5 + shift) ** 2 for name, shift in shifts.items()}
    for method in shifts:
        row = rows[OutcomeKey("skewed", "ddim:4", method)]
        assert row.to_real.mean == pytest.approx(squared[method], rel=1e-6)
        assert row.closed == pytest.approx((squared["none"] - squared[method]) / (squared["none"] - 16), abs=1e-6)
        apart = squared[method] - squared["d2-dpm"]
        assert row.nearer is None if method == "d2-dpm" else row.nearer.mean == pytest.approx(apart, rel=1e-6)
    assert (
        rows[OutcomeKey("skewed", "ddim:4", "none")].nearer.low
        > 0
        > rows[OutcomeKey("skewed", "ddim:4", "ptqd")].nearer.high
    )
    # The same pictures from other seeds: a gap of some seeds, and of none on the whole.
    shuffled = {
        key: dataclasses.replace(outcome, features=outcome.features[::-1] if key.method == "none" else base)
        for key, outcome in ((key, moved(outcome, 0.0)) for key, outcome in outcomes.items())
    }
    assert all(row.closed is None for row in compare(shuffled, "d2-dpm", real).values())
    text = comparison_tables(rows, "d2-dpm", {})
    assert text.count(" no |") >= 1
    assert re.search(r"\| \*\*d2-dpm\*\* \(default\) .* % closed", text)


def test_tables_and_pictures(outcomes, tmp_path):
    rows = compare(outcomes, "d2-dpm", None)
    text = comparison_tables(rows, "d2-dpm", {})
    assert text.count("| correction | image PSNR (dB) |") == 2 and "**skewed, ddim-eta1, 3 steps**" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {16}
    timesteps = {"ddim:4": np.arange(4.0)[::-1], "ddim-eta1:3": np.arange(3.0)[::-1]}
    written = write_pictures(tmp_path, outcomes, timesteps)
    names = [f"{kind}-skewed-{sampling}.png" for kind in ("curves", "grid") for sampling in ("ddim-4", "ddim-eta1-3")]
    assert sorted(path.name for path in written) == names
    assert all(path.stat().st_size > 1000 for path in written)


def test_a_table_is_put_into_its_place(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin main -->\nold\n<!-- end main -->\nafter\n")
    write_into(page, "main", "| new \\1 |\n")
    assert page.read_text() == "before\n<!-- begin main -->\n| new \\1 |\n<!-- end main -->\nafter\n"
    with pytest.raises(UsageError, match="must have one line '<!-- begin other -->'"):
        write_into(page, "other", "x")
    with pytest.raises(UsageError, match="cannot be read"):
        write_into(tmp_path / "none.md", "main", "x")


def test_tables_that_are_written_side_by_side_are_all_kept(tmp_path):
    page, names = tmp_path / "page.md", [f"table-{i}" for i in range(12)]
    page.write_text("".join(f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in names))
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: [write_into(page, name, f"{name}, {k}") for k in range(10)], names))
    assert [line for line in page.read_text().splitlines() if not line.startswith("<")] == [f"{n}, 9" for n in names]


def test_similarity_is_one_for_equal_images_and_falls_with_noise():
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32)
    noisy = np.clip(images + np.array([0, 0.2, 0.8])[:, None, None, None] * random.standard_normal(images.shape), -1, 1)
    found = ssim(noisy.astype(np.float32), images)
    assert found[0] == pytest.approx(1) and found[0] > found[1] > found[2]
    assert np.isnan(ssim(images[..., :8], images[..., :8])).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling("rk45", 5), "unknown sampler 'rk45'; there are ddim"),
        (lambda: Sampling("ddim", 0), "steps must be 1 to 4096, got 0"),
        (lambda: Sampling.parse("ddim"), "as in ddim:50, got 'ddim'"),
        (lambda: Sampling.parse("ddim:-3"), "as in ddim:50, got 'ddim:-3'"),
        (lambda: StudySettings(count=1), "count must be 2 to 65536, got 1"),
        (lambda: StudySettings(calibration_samples=3), "calibration samples must be 4 to 4096, got 3"),
        (lambda: StudySettings(methods=("tack",)), "unknown correction method 'tack'"),
        (lambda: StudySettings(samplings=()), "a study needs a sampler"),
    ],
)
def test_settings_that_do_not_exist_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_two_networks_of_one_name_are_refused(model, tmp_path):
    networks = [Network("a", Skewed(model), "0" * 64)] * 2
    with pytest.raises(UsageError, match="same name: a, a"):
        Study(model, networks, model_subjects(model, (), 1.0), SETTINGS, tmp_path, Progress())


def test_no_correction_is_always_there_and_first():
    assert StudySettings(methods=("tac", "tac", "none")).methods == ("none", "tac")
    usual = {("tac", "affine"): "affine", ("ibc", "oracle"): "ibc", (): "none", ("none",): "none"}
    assert {methods: StudySettings(methods=methods).usual for methods in usual} == usual
