"""Evaluation: the reference is diffusers' own, the arrays fit together, other references are refused."""

import dataclasses
import shutil

import numpy as np
import pytest
import tiny
import torch

from correction import CheckFailed, UsageError
from correction.calibrate import calibrate
from correction.schedulers import SAMPLERS, make_plan, make_scheduler
from mobile_export.batch import make_batch
from mobile_export.evaluate.bundle_evaluation import evaluate, figures_of
from mobile_export.evaluate.evaluation import VARIANTS
from mobile_export.evaluate.trajectory import sampler_parity, strip_steps
from mobile_export.metrics import bootstrap, psnr, snr
from mobile_export.models import reference
from mobile_export.models.diffusion_model import TorchDenoiser, load_model
from mobile_export.models.noise_source import PhiloxNoise
from mobile_export.part import Job
from mobile_export.report.check import check
from mobile_export.simulate import simulate

COUNT = 6


@pytest.fixture(scope="module")
def bundle(w4a8, tmp_path_factory):
    """With a correction that surely changes the images, which a random network's own need not."""
    folder = shutil.copytree(w4a8.bundle.path, tmp_path_factory.mktemp("evaluate") / "w4a8")
    return tiny.with_correction(folder, tiny.some_correction(w4a8.settings.steps))


@pytest.fixture(scope="module")
def evaluation(bundle, model):
    return evaluate(bundle, COUNT, model=model, benchmark=False)


@pytest.fixture(scope="module")
def noisy(w8a8):
    return evaluate(w8a8.bundle, 3, benchmark=False)  # the reference is loaded from where the manifest says


def test_arrays_fit_together(evaluation, noisy):
    for found, count, steps in ((evaluation, COUNT, 6), (noisy, 3, 5)):
        check(found)  # the report's own rules
        assert {v: a.shape for v, a in found.images.items()} == dict.fromkeys(VARIANTS, (count, 3, 8, 8))
        assert {v: a.dtype for v, a in found.images.items()} == dict.fromkeys(VARIANTS, np.float32)
        assert found.timesteps.shape == (steps,) and (np.diff(found.timesteps) < 0).all()
        assert set(found.strips) == set(VARIANTS)
        assert found.strips["reference"].shape == (min(4, count), len(found.strip_steps), 3, 8, 8)
        for key in ("quantized", "corrected"):
            assert found.snr_db[key].shape == (steps,) and np.isfinite(found.snr_db[key]).all()
            assert found.mean_drift[key].shape == found.std_ratio[key].shape == (steps, 3)
    assert evaluation.labels == ("cat", "dog", "fox") * 2
    assert noisy.labels == ("",) * 3


def test_the_reference_is_diffusers_own_sampling(evaluation, w4a8):
    """The pipeline's loop, written with diffusers alone; the noise is the only thing that is ours."""
    scheduler, _ = make_scheduler("ddim", w4a8.model.scheduler_config)
    scheduler.set_timesteps(6)
    labels = torch.arange(COUNT) % 3
    x = torch.from_numpy(make_batch(0, "evaluation", range(COUNT), (3, 8, 8), None).noise)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(w4a8.model.unet(x, t, class_labels=labels).sample, t, x).prev_sample
    np.testing.assert_allclose(evaluation.images["reference"], x.numpy(), atol=2e-4)
    assert evaluation.timesteps.tolist() == scheduler.timesteps.tolist()


def test_the_three_numbers_are_what_the_images_say(evaluation):
    shown = {name: np.clip(images, -1, 1) for name, images in evaluation.images.items()}
    plain, fixed = (psnr(shown[v], shown["reference"]) for v in ("quantized", "corrected"))
    assert evaluation.quantization_error == {"image_psnr_db": bootstrap(plain)}
    assert evaluation.correction_gain["image_psnr_db"] == bootstrap(fixed)
    assert evaluation.correction_gain["image_psnr_gain_db"] == bootstrap(fixed - plain)
    assert evaluation.correction_gain["seeds_improved"] == np.mean(fixed > plain)
    for variant in ("quantized", "corrected"):
        assert evaluation.snr_db[variant][-1] == snr(evaluation.images["reference"], evaluation.images[variant])
        drift = (evaluation.images[variant].astype(float) - evaluation.images["reference"]).mean((0, 2, 3))
        np.testing.assert_allclose(evaluation.mean_drift[variant][-1], drift, atol=1e-12)
    assert not np.array_equal(shown["quantized"], shown["corrected"])


def test_the_corrected_images_are_those_that_the_phone_draws(evaluation, bundle):
    """Same loop and artifact as simulate, on the noise of another stream."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "PhiloxNoise", lambda seed: PhiloxNoise(seed, "evaluation"))
        assert np.array_equal(simulate(bundle, COUNT, 0)[0], evaluation.images["corrected"])
        assert np.array_equal(simulate(bundle, COUNT, 0, corrected=False)[0], evaluation.images["quantized"])


def test_the_manifests_facts_are_passed_on(evaluation, bundle):
    manifest, part = bundle.manifest, bundle.component("executorch")
    assert evaluation.name == manifest["name"] == "tiny-w4a8" and evaluation.precision == "w4a8"
    assert (evaluation.target, evaluation.target_title) == ("executorch", "ExecuTorch")
    assert evaluation.artifact["bytes"] == bundle.artifact("executorch").stat().st_size
    assert evaluation.artifact["weight_bits_achieved"] == part["weight_bits_achieved"]
    assert evaluation.artifact["undelegated"] == {"aten::embedding": 1} and evaluation.artifact["delegates"] == 1
    assert evaluation.conversion_parity == part["conversion_parity"]
    assert evaluation.kept_steps.tolist() == bundle.part("executorch")["kept_steps"]
    correction = bundle.correction_file("executorch").correction
    assert all(np.array_equal(table, getattr(correction, name)) for name, table in evaluation.tables.items())
    assert evaluation.artifact["step_time_ratio"] is None  # not asked for
    assert evaluation.provenance["artifact sha256"] == manifest["files"]["executorch/unet.pte"]["sha256"]
    assert "stream calibration" in evaluation.provenance["calibration"]
    assert "stream evaluation" in evaluation.provenance["evaluation"]


def test_figures_keep_the_three_numbers_apart(evaluation):
    figures = figures_of(evaluation)
    assert {"conversion parity", "quantization error", "correction gain", "sampler parity (max abs)"} <= set(figures)
    assert figures["seeds"] == COUNT


def test_the_device_loop_is_the_diffusers_scheduler(evaluation, noisy):
    assert 0 <= evaluation.sampler_parity <= 1e-5
    assert 0 <= noisy.sampler_parity <= 1e-5


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_sampler_parity_of_every_sampler(sampler, model):
    plan = make_plan(sampler, model.scheduler_config, 7)
    batch = make_batch(0, "evaluation", range(2), model.sample_shape, {"class_labels": np.array([0, 1])})

    def clean(sample, timestep, /, class_labels):
        """Predicts that the clean image is 0, so that samples keep the size that a trained network gives them."""
        alpha = alphas[int(timestep)]
        return (sample / np.sqrt(1 - alpha)).astype(np.float32)

    alphas = make_scheduler(sampler, model.scheduler_config)[0].alphas_cumprod.numpy()
    for denoiser in (clean, TorchDenoiser(model.unet)) if plan.clip.any() else (clean,):
        assert sampler_parity(sampler, model, plan, denoiser, batch) <= 1e-5
    columns = {name: getattr(plan, name) * np.float32(1.001) for name in ("a", "b", "w", "sigma")}
    wrong = dataclasses.replace(plan, **columns)
    assert sampler_parity(sampler, model, wrong, clean, batch) > 1e-5


def test_calibration_and_evaluation_noise_are_disjoint(w4a8):
    """Also the noise that activation ranges were fitted on."""
    settings = w4a8.settings
    seen = Job.of(w4a8.model, settings).batch(range(settings.calibration_samples + settings.range_samples)).noise
    fresh = make_batch(0, "evaluation", range(64), w4a8.model.sample_shape, None).noise
    shown = make_batch(0, "simulation", range(64), w4a8.model.sample_shape, None).noise
    rows = [row.tobytes() for array in (seen, fresh, shown) for row in array]
    assert len(set(rows)) == len(rows)


def test_another_reference_is_refused_by_its_digest(w4a8, tmp_path):
    unet = tiny.make_unet(1)
    unet.conv_out.bias.data[0] += 1e-6
    folder = tiny.save_model(tmp_path / "tiny", unet, {"classes": tiny.CLASSES, "null": tiny.NULL_LABEL})
    with pytest.raises(CheckFailed, match=r"is not the model that tiny-w4a8 was made from \(its digest differs\)"):
        evaluate(w4a8.bundle, 2, model=load_model(str(folder)), benchmark=False)


@pytest.mark.parametrize("count", [1, 0, 4097])
def test_counts_that_give_no_interval_are_refused(w4a8, count):
    with pytest.raises(UsageError, match=f"2 to 4096 seeds, got {count}"):
        evaluate(w4a8.bundle, count, model=w4a8.model, benchmark=False)


@pytest.mark.parametrize(("steps", "expected"), [(1, (0,)), (3, (0, 1, 2)), (8, tuple(range(8)))])
def test_strips_of_few_steps_show_all(model, steps, expected):
    assert strip_steps(make_plan("ddim", model.scheduler_config, steps)) == expected


def test_strips_of_many_steps_show_eight_with_both_ends(model):
    shown = strip_steps(make_plan("ddim", model.scheduler_config, 50))
    assert len(shown) == 8 and shown[0] == 0 and shown[-1] == 49 and list(shown) == sorted(set(shown))


def test_without_a_quantizer_the_correction_is_the_identity(model, w4a8):
    """The pipeline's own noise and plan, with the reference in place of the artifact."""
    plan = make_plan("ddim", model.scheduler_config, 6)
    batch = Job.of(model, w4a8.settings).batch(range(8))
    reference = TorchDenoiser(model.unet)
    result = calibrate(plan, reference, reference, batch.noise, "input-gain", batch.conditioning)
    assert result.correction.is_identity and not result.kept.any()


def test_noise_of_a_trajectory_stays_the_same_for_every_variant(noisy, w8a8):
    """A stochastic sampler compares like with like: the same fresh noise for reference, quantized and corrected."""
    assert noisy.quantization_error["image_psnr_db"].mean > 15
    assert w8a8.bundle.correction_file("executorch").plan.needs_noise
