"""Compiled plans against the diffusers schedulers that they came from."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from toys import ALPHAS, reference

from correction import NotLinearError, UsageError, initial_noise, sample, step_noises
from correction.loop import advance
from correction.schedulers import SAMPLERS, compile_plan, make_plan, replay_error

SHAPE = (3, 8, 8)
SAMPLES = range(2)
STEPS = (5, 20, 50)


def denoiser(prediction_type):
    """The toy network in another parametrisation."""

    def predict(x, timestep):
        eps = reference(x, timestep)
        alpha = ALPHAS[int(timestep)]
        x0 = (x - np.sqrt(1 - alpha) * eps) / np.sqrt(alpha)
        if prediction_type == "sample":
            return x0.astype(np.float32)
        return (np.sqrt(alpha) * eps - np.sqrt(1 - alpha) * x0).astype(np.float32)

    return reference if prediction_type == "epsilon" else predict


def diffusers_run(scheduler, steps, eta, network, dtype=torch.float32, outputs=None):
    """Samples before each step, model outputs, and the last sample, as the diffusers pipelines compute them."""
    scheduler.set_timesteps(steps)
    noises = step_noises(3, "evaluation", SAMPLES, SHAPE)
    x = torch.from_numpy(initial_noise(3, "evaluation", SAMPLES, SHAPE)).to(dtype)
    befores, ms = [], []
    for i, t in enumerate(scheduler.timesteps):
        m = network(x.numpy().astype(np.float32), float(t)) if outputs is None else outputs[i]
        befores.append(x.numpy())
        ms.append(m)
        options = {"variance_noise": torch.from_numpy(noises(i)).to(dtype)}
        if isinstance(scheduler, DDIMScheduler):
            options["eta"] = eta
        x = scheduler.step(torch.from_numpy(m).to(dtype), t, x, **options).prev_sample
    return befores, ms, x.numpy()


CASES = [
    (DDIMScheduler, {"clip_sample": clip}, eta, kind)
    for clip in (True, False)
    for eta in (0.0, 1.0)
    for kind in ("epsilon", "v_prediction", "sample")
] + [
    (DPMSolverMultistepScheduler, {"solver_order": order, "algorithm_type": algorithm}, 0.0, kind)
    for order, algorithm, kind in (
        (1, "dpmsolver++", "epsilon"),
        (2, "dpmsolver++", "epsilon"),
        (2, "dpmsolver++", "v_prediction"),
        (3, "dpmsolver++", "epsilon"),
        (2, "sde-dpmsolver++", "epsilon"),
    )
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("kind", "settings", "eta", "prediction_type"), CASES)
def test_trajectories_agree_with_diffusers(kind, settings, eta, prediction_type, steps):
    scheduler = kind(timestep_spacing="trailing", prediction_type=prediction_type, **settings)
    plan = compile_plan(scheduler, steps, eta)
    network = denoiser(prediction_type)
    befores, outputs, theirs = diffusers_run(scheduler, steps, eta, network)
    noises = step_noises(3, "evaluation", SAMPLES, SHAPE)

    # 1. every step, from the sample and with the model output that diffusers had
    history = []
    for i, (x, m) in enumerate(zip(befores, outputs, strict=True)):
        after, y = advance(plan, i, x, m, history, noises)
        history = [y, *history]
        expected = befores[i + 1] if i + 1 < steps else theirs
        assert np.abs(after - expected).max() <= 1e-5

    # 2. the whole trajectory with the network in the loop
    noise = initial_noise(3, "evaluation", SAMPLES, SHAPE)
    assert np.abs(sample(plan, network, noise, step_noise=noises) - theirs).max() <= 1e-5

    # 3. the whole trajectory with recorded model outputs. Nothing pulls it back, so an epsilon network's rounding
    # grows by 1/sqrt(alpha-bar) of the first step, 157 here, in diffusers as in the loop: judge both in float64.
    replies = iter(outputs)
    ours = sample(plan, lambda x, t: next(replies), noise, step_noise=noises)
    exact = diffusers_run(scheduler, steps, eta, network, torch.float64, outputs)[2]
    assert np.abs(ours - exact).max() <= max(1e-5, 3 * 157 * 2**-23 * 2)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("clip", [True, False])
def test_ddpm_agrees_with_diffusers_and_its_own_noise(steps, variance, clip):
    scheduler = DDPMScheduler(timestep_spacing="trailing", variance_type=variance, clip_sample=clip)
    plan = compile_plan(scheduler, steps)
    scheduler.set_timesteps(steps)
    generator, twin = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    noise = initial_noise(0, "evaluation", SAMPLES, SHAPE)
    x = torch.from_numpy(noise)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.from_numpy(reference(x.numpy(), float(t))), t, x, generator=generator).prev_sample
    ours = sample(plan, reference, noise, step_noise=lambda i: torch.randn(noise.shape, generator=twin).numpy())
    assert np.abs(ours - x.numpy()).max() <= 1e-5


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_named_samplers_compile_and_start_at_pure_noise(name, steps):
    plan = make_plan(name, {"num_train_timesteps": 1000, "timestep_spacing": "leading", "clip_sample": True}, steps)
    rows = {"heun": 2 * steps - 1, "kdpm2": 2 * steps - 1, "pndm": steps + (steps > 1)}
    assert plan.steps == rows.get(name, steps)
    assert plan.timestep[0] == 999
    noisy = ("ddim-eta1", "ddpm", "euler-a", "dpmpp-2m-sde", "sa-solver", "lcm", "tcd")
    assert plan.needs_noise == (name in noisy and steps > 1)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "dpmpp-2m", "pndm"])
def test_every_training_timestep_can_be_a_step(name):
    plan = make_plan(name, {"num_train_timesteps": 1000, "clip_sample": True}, 1000)
    assert np.unique(plan.timestep).tolist() == list(range(1000))


def test_named_sampler_equals_the_scheduler_it_names():
    plan = make_plan("ddim", {"beta_end": 0.015, "prediction_type": "v_prediction", "clip_sample": False}, 10)
    scheduler = DDIMScheduler(
        beta_end=0.015, prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing"
    )
    assert plan.digest() == compile_plan(scheduler, 10).digest()
    assert make_plan("ddim", {"timestep_spacing": "leading"}, 50, spacing=None).timestep[0] == 980


def test_ddim_coefficients_are_those_of_the_paper():
    """arXiv 2010.02502, equation 12, eta 0."""
    plan = make_plan("ddim", {"clip_sample": True}, 10)
    alpha = ALPHAS[plan.timestep.astype(int)]
    before = np.append(ALPHAS[plan.timestep.astype(int)[1:]], 1.0)
    np.testing.assert_allclose(plan.p, alpha**-0.5, rtol=1e-5)
    np.testing.assert_allclose(plan.q, -np.sqrt(1 / alpha - 1), rtol=1e-5)
    np.testing.assert_allclose(plan.w[:, 0], np.sqrt(before), rtol=1e-5)
    np.testing.assert_allclose(plan.b, np.sqrt(1 - before), rtol=1e-5, atol=1e-7)
    assert np.abs(plan.a).max() < 1e-9
    assert (plan.clip == 1).all() and (plan.sigma == 0).all() and plan.init_sigma == 1


def test_input_scale_and_start_of_a_sigma_scheduler():
    plan = compile_plan(EulerDiscreteScheduler(), 10)
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(10)
    np.testing.assert_allclose(plan.input_scale, (scheduler.sigmas[:-1].double() ** 2 + 1) ** -0.5, rtol=1e-6)
    assert plan.init_sigma == pytest.approx(float(scheduler.init_noise_sigma))


def test_the_proof_notices_a_wrong_table():
    from dataclasses import replace

    scheduler = DDIMScheduler(timestep_spacing="trailing")
    plan = compile_plan(scheduler, 10)
    assert replay_error(plan, scheduler)[0] < 1e-6
    for column in ("p", "q", "a", "b", "w", "sigma", "input_scale"):
        wrong = np.array(getattr(plan, column))
        wrong[6] += 0.01
        error, step = replay_error(replace(plan, **{column: wrong}), scheduler)
        assert error > 1e-4 and step == 6, column


def test_the_scheduler_is_not_changed():
    scheduler = DPMSolverMultistepScheduler()
    compile_plan(scheduler, 10)
    assert scheduler.num_inference_steps is None


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (lambda: DDIMScheduler(thresholding=True), "thresholding"),
        (lambda: DDPMScheduler(variance_type="learned_range"), "variance"),
        (lambda: DDIMInverseScheduler(), "timesteps must not increase, but step 1 has 100 after 0"),
        (lambda: EulerAncestralDiscreteScheduler(prediction_type="sample"), "not implemented"),
        (lambda: DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing"), "zero terminal SNR"),
        (lambda: UniPCMultistepScheduler(prediction_type="flow_prediction"), "configuration says 'flow_prediction'"),
        (lambda: FlowMatchEulerDiscreteScheduler(), "its configuration has no prediction_type"),
        (
            lambda: DPMSolverSinglestepScheduler(algorithm_type="sde-dpmsolver++", final_sigmas_type="zero"),
            "linear",
        ),
    ],
)
def test_refused_schedulers_are_named_with_the_reason(scheduler, reason):
    made = scheduler()
    with pytest.raises(NotLinearError, match=reason) as caught:
        compile_plan(made, 10)
    assert type(made).__name__ in str(caught.value)


def test_a_scheduler_that_is_not_linear_fails_the_proof():
    class Squaring(DDIMScheduler):
        def step(self, model_output, timestep, sample, eta=0.0, **options):
            result = super().step(model_output, timestep, sample, eta, **options)
            result.prev_sample = result.prev_sample + 0.01 * sample**2
            return result

    with pytest.raises(NotLinearError, match=r"Squaring is not linear.*step 0 differs"):
        compile_plan(Squaring(), 10)


def test_timesteps_can_be_given_where_the_scheduler_takes_them():
    plan = compile_plan(DDPMScheduler(), [999, 500, 3])
    assert plan.timestep.tolist() == [999, 500, 3] and plan.scheduler_config["timesteps"] == [999, 500, 3]
    assert compile_plan(DDPMScheduler(), 3).scheduler_config["num_inference_steps"] == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_plan("dimm", {}, 10), "ddim, ddim-eta1"),
        (lambda: make_plan("ddim", {}, 0), r"1\.\.1000"),
        (lambda: make_plan("ddim", {}, 1001), r"1\.\.1000"),
        (lambda: make_plan("ddim", {}, 2.5), "2.5"),
        (lambda: make_plan("ddim", {}, 10, spacing="even"), "even"),
        (lambda: compile_plan(DDIMScheduler(), 10, eta=1.5), "1.5"),
        (lambda: compile_plan(DPMSolverMultistepScheduler(), 10, eta=0.5), "takes no eta"),
        (lambda: make_plan("ddim", {}, [5, 3]), "DDIMScheduler takes no timesteps"),
        (lambda: make_plan("ddpm", {}, [3, 5]), r"decreasing whole numbers, got \[3, 5\]"),
        (lambda: make_plan("ddpm", {}, []), r"decreasing whole numbers, got \[\]"),
        (lambda: make_plan("ddpm", {}, [1000, 5]), r"DDPMScheduler refuses steps=\[1000, 5\]"),
        (lambda: make_plan("lcm", {}, 51), "LCMScheduler refuses steps=51"),
    ],
)
def test_requests_out_of_range_are_usage_errors(call, message):
    with pytest.raises(UsageError, match=message):
        call()
