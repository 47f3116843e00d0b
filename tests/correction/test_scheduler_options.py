"""Schedulers with any of their options: a plan that is the scheduler, or a refusal for a reason that is true."""

import inspect
from collections import Counter

import diffusers.schedulers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_parity import measure
from scheduler_survey import make

from correction import UsageError

pytestmark = pytest.mark.filterwarnings("ignore")  # of diffusers, about configurations that are deprecated

CLASSES = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
OPTIONS = {
    "prediction_type": ["epsilon", "sample", "v_prediction"],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2"],
    "timestep_spacing": ["trailing", "leading", "linspace"],
    "clip_sample": [True, False],
    "clip_sample_range": [0.5, 1.0, 3.0],
    "thresholding": [False, False, True],
    "rescale_betas_zero_snr": [False, True],
    "use_karras_sigmas": [False, True],
    "use_exponential_sigmas": [False, False, True],
    "set_alpha_to_one": [True, False],
    "steps_offset": [0, 1],
    "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", None],
    "final_sigmas_type": ["zero", "sigma_min"],
    "solver_order": [1, 2, 3],
    "solver_type": ["midpoint", "heun", "bh1", "bh2", "logrho"],
    "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver", "deis", "data_prediction"],
    "predictor_order": [1, 2, 3],
    "corrector_order": [1, 2, 3],
    "predict_x0": [True, False],
    "lower_order_final": [True, False],
    "euler_at_final": [False, True],
    "skip_prk_steps": [True, True, False],
}


@st.composite
def requests(draw):
    """(scheduler class, its options, steps or timesteps, eta)."""
    name = draw(st.sampled_from(CLASSES))
    kind = getattr(diffusers.schedulers, name)
    takes = [key for key in inspect.signature(kind).parameters if key in OPTIONS]
    chosen = draw(st.lists(st.sampled_from(takes), unique=True, max_size=5))
    options = {key: draw(st.sampled_from(OPTIONS[key])) for key in chosen}
    steps = draw(st.integers(1, 60))
    if "timesteps" in inspect.signature(kind.set_timesteps).parameters and draw(st.booleans()):
        steps = sorted(draw(st.sets(st.integers(0, 999), min_size=1, max_size=20)), reverse=True)
    eta = draw(st.sampled_from([0.0, 0.3, 1.0])) if "eta" in inspect.signature(kind.step).parameters else 0.0
    return name, options, steps, eta


def set_timesteps(scheduler, steps):
    if isinstance(steps, int):
        scheduler.set_timesteps(steps)
    else:
        scheduler.set_timesteps(timesteps=steps)


def diffusers_fails(scheduler, steps):
    """Whether diffusers' own loop raises or ends in NaN or infinity."""
    x = torch.ones(1, 3, 8, 8)
    try:
        set_timesteps(scheduler, steps)
        for t in scheduler.timesteps:
            x = scheduler.step(torch.full_like(x, 0.9), t, x).prev_sample
    except Exception:  # whatever it is, it is diffusers' own answer
        return True
    return not x.isfinite().all()


def timesteps_increase(scheduler, steps):
    set_timesteps(scheduler, steps)
    return (torch.as_tensor(scheduler.timesteps).double().diff() > 0).any()


def is_true(reason, name, scheduler, steps):
    """Whether the reason of a refusal holds for that scheduler, judged without the code that refused it."""
    config = scheduler.config
    if "which is not linear. Set thresholding=False" in reason:
        return config.thresholding
    if "the noise level is a network output" in reason:
        return config.variance_type == "learned"
    if "An epsilon network says nothing at zero terminal SNR" in reason:
        return config.rescale_betas_zero_snr and config.prediction_type == "epsilon"
    if "is not linear in the form of the device loop" in reason:
        sde = name == "DPMSolverSinglestepScheduler" and config.algorithm_type == "sde-dpmsolver++"
        return sde or (name == "PNDMScheduler" and not config.skip_prk_steps)
    if "its timesteps must not increase" in reason:
        return timesteps_increase(scheduler, steps)
    if "gives NaN or infinity" in reason or "cannot be stepped" in reason or "refuses steps=" in reason:
        return diffusers_fails(scheduler, steps)
    return False


def test_any_options_give_a_plan_that_is_the_scheduler_or_a_refusal_whose_reason_is_true():
    outcomes = Counter()

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(requests())
    def check(request):
        name, options, steps, eta = request
        try:
            scheduler = make(name, **options)
        except (NotImplementedError, ValueError):
            outcomes["refused by diffusers"] += 1  # a combination that its constructor forbids
            return
        try:
            _, parity = measure(scheduler, steps, eta)
        except UsageError as refusal:
            assert str(refusal).startswith(name) and is_true(str(refusal), name, scheduler, steps), refusal
            outcomes["refused"] += 1
        else:
            assert parity.holds(), parity
            outcomes["plan"] += 1

    check()
    assert outcomes["plan"] > sum(outcomes.values()) / 2, outcomes
    assert outcomes["refused"] > 0, outcomes
