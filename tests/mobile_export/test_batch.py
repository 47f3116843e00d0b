"""A batch: some of its samples are the samples themselves, and cost no more than they are."""

import numpy as np

from mobile_export import batch as batch_module
from mobile_export.batch import make_batch


def test_rows_have_the_noise_that_they_have_in_the_whole():
    whole = make_batch(3, "evaluation", range(5, 13), (2, 4, 4), {"class_labels": np.arange(8)})
    for rows in (slice(0, 8), slice(2, 5), slice(7, 9), slice(4, None)):
        some = whole.rows(rows)
        assert np.array_equal(some.noise, whole.noise[rows])
        assert np.array_equal(some.step_noise(1), whole.step_noise(1)[rows])
        assert np.array_equal(some.conditioning["class_labels"], whole.conditioning["class_labels"][rows])
    assert np.array_equal(whole.rows(slice(2, 8)).rows(slice(1, 3)).step_noise(0), whole.step_noise(0)[3:5])


def test_no_noise_is_made_of_samples_that_are_not_asked_for(monkeypatch):
    made = []

    def counting(seed, stream, samples, *rest):
        made.extend(samples)
        return real(seed, stream, samples, *rest)

    real = batch_module.step_noise
    monkeypatch.setattr(batch_module, "step_noise", counting)
    whole = make_batch(0, "evaluation", range(100), (1, 2, 2))
    for k in range(100):
        whole.rows(slice(k, k + 1)).step_noise(0)
    assert made == list(range(100))
