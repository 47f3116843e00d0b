"""Every scheduler class of diffusers, tried: a plan with its parity, or the reason why there is none.

`python tests/correction/scheduler_survey.py` prints the tables of docs/schedulers.md.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import diffusers.schedulers
import torch
from scheduler_parity import Parity, measure, worst

from correction import SamplingPlan, UsageError
from correction.plan import PREDICTION_TYPES
from correction.probe import Steps
from correction.schedulers import SAMPLERS, compile_plan

STEPS = (5, 20, 50)
ROWS = {"N": lambda n: n, "N + 1": lambda n: n + 1, "2 N - 1": lambda n: 2 * n - 1}  # calls of the network
# What these classes need to be made; PNDM's is what pipelines set.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "AmusedScheduler": {"mask_token_id": 1},
    "PNDMScheduler": {"skip_prk_steps": True},
    "RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 1.0, "tsr_sigma": 1.0},
    "VQDiffusionScheduler": {"num_vec_classes": 2},
}


@dataclass(frozen=True)
class Outcome:
    """What became of one class: `reason` says why it is refused, or parity has the figures of each prediction type."""

    name: str
    reason: str = ""
    rows: str = ""
    history: int = 0
    noise: str = ""
    parity: Mapping[str, Parity] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """A configuration of its own: settings beside the usual ones, eta, whether timesteps are given as a list."""

    name: str
    settings: Mapping[str, Any]
    eta: float = 0.0
    given: bool = False

    def label(self) -> str:
        said = [f"{key}={value!r}" for key, value in self.settings.items()]
        said += [f"eta={self.eta:g}"] if self.eta else []
        return ", ".join(f"`{each}`" for each in said + (["timesteps=[...]"] if self.given else []))


ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
V = {"prediction_type": "v_prediction"}
OPTIONS = (
    Option("DDIMScheduler", {"clip_sample": False}),
    Option("DDIMScheduler", {"clip_sample_range": 3.0}),
    Option("DDIMScheduler", {}, eta=0.5),
    Option("DDIMScheduler", {"timestep_spacing": "trailing"}),
    Option("DDIMScheduler", {"timestep_spacing": "linspace"}),
    Option("DDIMScheduler", ZERO_SNR),
    Option("DDIMScheduler", ZERO_SNR | V),
    Option("DDIMScheduler", ZERO_SNR | {"prediction_type": "sample"}),
    Option("DDIMScheduler", {"thresholding": True}),
    Option("DDPMScheduler", {"clip_sample": False}),
    Option("DDPMScheduler", {"variance_type": "fixed_small_log"}),
    Option("DDPMScheduler", {"variance_type": "fixed_large"}),
    Option("DDPMScheduler", {"variance_type": "fixed_large_log"}),
    Option("DDPMScheduler", {"variance_type": "learned_range"}),
    Option("DDPMScheduler", {}, given=True),
    Option("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    Option("EulerDiscreteScheduler", {"use_exponential_sigmas": True}),
    Option("EulerDiscreteScheduler", ZERO_SNR | V),
    Option("EulerDiscreteScheduler", {}, given=True),
    Option("EulerAncestralDiscreteScheduler", ZERO_SNR | V),
    Option("HeunDiscreteScheduler", {"use_karras_sigmas": True}),
    Option("HeunDiscreteScheduler", {"clip_sample": True}),
    Option("KDPM2DiscreteScheduler", {"use_karras_sigmas": True}),
    Option("PNDMScheduler", {"set_alpha_to_one": True}),
    Option("PNDMScheduler", {"skip_prk_steps": False}),
    *(Option("DPMSolverMultistepScheduler", {"solver_order": order}) for order in (1, 3)),
    *(
        Option("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": order})
        for order in (1, 2, 3)
    ),
    Option("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    Option("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    Option("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    Option("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
    Option("DPMSolverMultistepScheduler", ZERO_SNR | V),
    Option("DPMSolverMultistepScheduler", {"variance_type": "learned_range"}),
    *(Option("DPMSolverSinglestepScheduler", {"solver_order": order}) for order in (1, 3)),
    Option("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    Option("DEISMultistepScheduler", {"solver_order": 3}),
    *(Option("UniPCMultistepScheduler", {"solver_order": order}) for order in (1, 3)),
    Option("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}),
    Option("SASolverScheduler", {"predictor_order": 3, "corrector_order": 4}),
    Option("LCMScheduler", {"clip_sample": True}),
    Option("LCMScheduler", {}, given=True),
    Option("TCDScheduler", {}, eta=0.3),
)


def class_names() -> list[str]:
    """Names of all scheduler classes that diffusers exports."""
    return sorted(name for name in dir(diffusers.schedulers) if name.endswith("Scheduler"))


def make(name: str, **settings: Any) -> Any:
    """A scheduler of that class. diffusers raises ImportError for classes that need a library that is not there."""
    return getattr(diffusers.schedulers, name)(**{**SETTINGS.get(name, {}), **settings})


@cache
def survey(name: str) -> Outcome:
    """The outcome of one class with its usual configuration: at STEPS, for each prediction type, with eta 0 and 1."""
    try:
        scheduler = make(name)
        compile_plan(scheduler, STEPS[0])
    except ImportError as error:
        needs = " ".join(str(error).split()).partition(" requires the ")[2].partition(" library")[0]
        return Outcome(name, f"{name} needs {needs}, which is not installed.")
    except UsageError as error:
        return Outcome(name, str(error))
    etas = (0.0, 1.0) if takes_eta(scheduler) else (0.0,)
    found, plans = {}, {}
    for kind in PREDICTION_TYPES:
        scheduler = make(name, prediction_type=kind)
        try:
            tried = {(steps, eta): measure(scheduler, steps, eta) for steps in STEPS for eta in etas}
        except UsageError:
            continue  # diffusers has no such prediction type for this class
        plans |= {(kind, *key): plan for key, (plan, _) in tried.items()}
        found[kind] = worst([parity for _, parity in tried.values()])
    return Outcome(
        name,
        rows=rows_of(plans),
        history=max(plan.history for plan in plans.values()),
        noise=noise_of({eta: plan for (_, _, eta), plan in plans.items()}),
        parity=found,
    )


def takes_eta(scheduler: Any) -> bool:
    """Whether `compile_plan` takes an eta for it."""
    try:
        compile_plan(scheduler, 1, 1.0)
    except UsageError as error:
        if "takes no eta" not in str(error):
            raise
        return False
    return True


def rows_of(plans: Mapping[tuple[str, int, float], SamplingPlan]) -> str:
    """The key of ROWS that gives the rows of every plan."""
    fits = [name for name, rows in ROWS.items() if all(plan.steps == rows(key[1]) for key, plan in plans.items())]
    if len(fits) != 1:
        raise ValueError(f"rows must be one of {list(ROWS)} of the steps, got {[p.steps for p in plans.values()]}.")
    return fits[0]


def noise_of(plans: Mapping[float, SamplingPlan]) -> str:
    """When there is fresh noise, by eta."""
    needs = {eta for eta, plan in plans.items() if plan.needs_noise}
    return {frozenset(): "no", frozenset({1.0}): "if eta > 0"}.get(frozenset(needs), "yes")


def timesteps(count: int) -> Steps:
    """That many timesteps from 999 down."""
    return [round(999 * (1 - i / count)) for i in range(count)]


@cache
def option_outcomes() -> tuple[str | Parity, ...]:
    """For each of OPTIONS its parity over STEPS, or the reason why it is refused."""
    return tuple(map(try_option, OPTIONS))


def try_option(option: Option) -> str | Parity:
    scheduler = make(option.name, **option.settings)
    try:
        tried = [measure(scheduler, timesteps(n) if option.given else n, option.eta) for n in STEPS]
    except UsageError as error:
        return str(error)
    return worst([parity for _, parity in tried])


def tables() -> list[list[list[str]]]:
    """The cells of the page's tables: samplers, classes with a plan and without, options with a plan and without."""
    classes = [survey(name) for name in class_names()]
    options = list(zip(OPTIONS, option_outcomes(), strict=True))
    return [
        [[f"`{name}`", f"`{each.scheduler}`", each.about] for name, each in sorted(SAMPLERS.items())],
        [class_cells(each) for each in classes if each.parity],
        [[f"`{each.name}`", without(each.name, each.reason)] for each in classes if not each.parity],
        [option_cells(option, found) for option, found in options if isinstance(found, Parity)],
        [
            [f"`{option.name}`", option.label(), without(option.name, found)]
            for option, found in options
            if isinstance(found, str)
        ],
    ]


def class_cells(outcome: Outcome) -> list[str]:
    every = worst(list(outcome.parity.values()))
    others = worst([parity for kind, parity in outcome.parity.items() if kind != "epsilon"])
    epsilon = outcome.parity["epsilon"]
    figures = [every.step, every.loop, every.exact, others.recorded, epsilon.recorded, epsilon.own_recorded]
    names = ", ".join(outcome.parity)
    return [f"`{outcome.name}`", names, outcome.rows, str(outcome.history), outcome.noise, *map(figure, figures)]


def option_cells(option: Option, found: Parity) -> list[str]:
    figures = [found.step, found.loop, found.own_loop, found.exact, found.recorded, found.own_recorded]
    return [f"`{option.name}`", option.label(), *map(figure, figures)]


def figure(value: float) -> str:
    return f"{value:.1e}"


def without(name: str, reason: str) -> str:
    return reason.removeprefix(name).strip()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    for rows in tables():
        print(*(f"| {' | '.join(row)} |" for row in rows), sep="\n", end="\n\n")
