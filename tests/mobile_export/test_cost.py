"""What a correction adds to a step, by a clock that runs as the parts of a step say."""

import numpy as np
import pytest

from correction import loop
from correction.schedulers import make_plan
from mobile_export.batch import make_batch
from mobile_export.evaluate import cost

SCHEDULER = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now

    def takes(self, seconds, function):
        def timed(*arguments, **options):
            self.now += seconds() if callable(seconds) else seconds
            return function(*arguments, **options)

        return timed


@pytest.mark.parametrize("sampler", ["ddim", "ddim-eta1"])
def test_both_halves_over_the_step_without_them(monkeypatch, sampler):
    clock, jitter = Clock(), np.random.default_rng(0)
    monkeypatch.setattr(cost, "time", clock)
    monkeypatch.setattr(cost, "correct", clock.takes(0.002, loop.correct))
    monkeypatch.setattr(cost, "advance", clock.takes(0.1, loop.advance))
    denoiser = clock.takes(lambda: jitter.choice([0.9, 0.9, 0.9, 5.0]), lambda x, t: 0.5 * x)
    plan, batch = make_plan(sampler, SCHEDULER, 5), make_batch(0, "evaluation", range(1), (3, 4, 4), {})
    found = cost.step_cost(plan, denoiser, batch)
    assert (found.seconds, found.share) == (pytest.approx(0.9 + 0.1), pytest.approx(2 * 0.002 / (0.9 + 0.1)))
