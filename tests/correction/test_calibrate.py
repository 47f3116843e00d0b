"""Calibration: identity where nothing is wrong, known errors found, unseen noise improved, interruptions survived."""

from dataclasses import dataclass

import numpy as np
import pytest
from diffusers import DPMSolverMultistepScheduler
from toys import Skewed, reference

from correction import METHODS, CheckFailed, NonFiniteError, UsageError, calibrate, initial_noise, sample, step_noises
from correction.methods import Method
from correction.schedulers import compile_plan, make_plan
from correction.tables import NAMES

SHAPE = (3, 6, 6)
NOISE = initial_noise(0, "calibration", range(24), SHAPE)
PLAN = make_plan("ddim", {"clip_sample": False}, 8)
NOISY_PLAN = make_plan("ddim-eta1", {"clip_sample": True}, 8)
MULTISTEP_PLAN = make_plan("dpmpp-2m", {}, 8)
THIRD_ORDER_PLAN = compile_plan(DPMSolverMultistepScheduler(solver_order=3, prediction_type="epsilon"), 20)
FRESH = step_noises(0, "calibration", range(24), SHAPE)


def distance(plan, quantized, correction, network=reference):
    """Mean squared distance to the reference at the end, on noise that calibration never saw."""
    noise = initial_noise(0, "evaluation", range(16), SHAPE)
    fresh = step_noises(0, "evaluation", range(16), SHAPE)
    ours = sample(plan, quantized, noise, correction, fresh)
    return float(np.mean((ours - sample(plan, network, noise, None, fresh)) ** 2))


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("plan", [PLAN, NOISY_PLAN, MULTISTEP_PLAN], ids=["ddim", "eta1", "multistep"])
def test_without_a_quantizer_the_correction_is_the_identity(plan, method):
    result = calibrate(plan, reference, reference, NOISE, method, step_noise=FRESH)
    assert result.correction.is_identity and not result.kept.any() and not result.dropped
    assert all(row.trajectory_with == row.trajectory_without == 0 for row in result.statistics)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"none"}))
@pytest.mark.parametrize("plan", [PLAN, NOISY_PLAN, MULTISTEP_PLAN], ids=["ddim", "eta1", "multistep"])
def test_unseen_noise_comes_nearer_to_the_reference(plan, method):
    quantized = Skewed(gain=0.95, bias=0.05, noise=0.05)
    result = calibrate(plan, reference, quantized, NOISE, method, step_noise=FRESH)
    assert not result.dropped
    corrected = distance(plan, quantized, result.correction)
    share = 0.9 if method == "ner" else 0.8  # a gain alone does not take the bias away
    assert corrected < share * distance(plan, quantized, None)
    last = result.statistics[-1]
    assert last.trajectory_with < last.trajectory_without


def test_none_corrects_nothing_and_calls_the_quantized_network_once_per_sample_and_step():
    calls = []

    def quantized(x, t):
        calls.append(len(x))
        return Skewed()(x, t)

    result = calibrate(PLAN, reference, quantized, NOISE, "none")
    assert result.correction.is_identity
    assert sum(calls) == len(NOISE) * PLAN.steps


def test_a_known_output_gain_is_found():
    """eps_hat = 0.9 eps, no bias: the gain that undoes it is 1/0.9, at every step, and the trajectory is repaired."""
    method = Method("gain", output=METHODS["tac-lsq"].output)
    result = calibrate(PLAN, reference, Skewed(0.9, 0.0), NOISE, method)
    np.testing.assert_allclose(result.correction.output_gain, 1 / 0.9, rtol=1e-5)
    assert (result.correction.output_bias == 0).all() and (result.correction.input_gain == 1).all()
    assert result.kept.tolist() == [[False, True]] * PLAN.steps
    assert distance(PLAN, Skewed(0.9, 0.0), result.correction) < 1e-9


def test_a_known_drift_of_the_sample_is_found():
    """One step adds d = b * bias to the sample, in every channel; the next step's IBC takes it away again."""
    bias = 0.02
    result = calibrate(PLAN, reference, Skewed(1.0, bias), NOISE, "ibc")
    assert result.correction.input_bias[0] == pytest.approx([0, 0, 0])  # no drift yet
    drift = -(PLAN.b[0] + PLAN.w[0, 0] * PLAN.q[0]) * bias
    np.testing.assert_allclose(result.correction.input_bias[1], drift, rtol=1e-3)
    assert (result.correction.input_gain == 1).all() and (result.correction.output_gain == 1).all()
    errors = result.standard_errors["input_bias"]
    assert (errors[1:] >= 0).all() and (errors[1] < 1e-3 * abs(drift)).all()


@pytest.mark.parametrize("plan", [PLAN, NOISY_PLAN, THIRD_ORDER_PLAN], ids=["ddim", "eta1", "third-order"])
def test_the_statistics_are_those_of_the_device_loop(plan):
    """What calibration says of the samples at the end is what sampling them again gives, to the last bit."""
    quantized = Skewed(0.95, 0.05, 0.05)
    result = calibrate(plan, reference, quantized, NOISE, "tac", step_noise=FRESH)
    exact = sample(plan, reference, NOISE, None, FRESH).astype(np.float64)
    for correction, name in ((result.correction, "trajectory_with"), (None, "trajectory_without")):
        ours = sample(plan, quantized, NOISE, correction, FRESH)
        each = np.mean((ours - exact) ** 2, axis=(1, 2, 3))
        assert getattr(result.statistics[-1], name) == np.exp(np.mean(np.log(each)))


def test_held_out_samples_take_no_part_in_the_fit():
    """The quantizer's bias is 10 % smaller on held-out samples: the drift found must be that of the others."""
    share = np.where(np.arange(24) < 18, 1.0, 0.9)

    def network(x, t, /, share):
        return reference(x, t)

    def quantized(x, t, /, share):
        return (reference(x, t) + 0.02 * share[:, None, None, None]).astype(np.float32)

    result = calibrate(PLAN, network, quantized, NOISE, "ibc", conditioning={"share": share})
    drift = -(PLAN.b[0] + PLAN.w[0, 0] * PLAN.q[0]) * 0.02
    np.testing.assert_allclose(result.correction.input_bias[1], drift, rtol=1e-3)


@pytest.mark.parametrize(("method", "calls_per_step"), [("tac-paired", 24), ("tac", 24 + 18), ("ibc", 24)])
def test_the_reference_is_asked_again_only_for_the_same_input(method, calls_per_step):
    calls = []

    def network(x, t):
        calls.append(len(x))
        return reference(x, t)

    calibrate(PLAN, network, Skewed(), NOISE, method)
    assert sum(calls) == calls_per_step * PLAN.steps


@pytest.mark.parametrize(("harmed", "dropped"), [(24, True), (6, False)])
def test_a_correction_that_helps_each_step_but_not_the_end_is_dropped(harmed, dropped):
    """All samples together say so: that the last ones, which are those held out, are harmed is not enough."""
    index = np.arange(24)
    seen: dict[str, np.ndarray] = {}  # samples before the last step

    def keep(name):
        return lambda i, x, m, y: seen.update({name: x})

    def network(x, t, /, index):
        return reference(x, t)

    def quantized(x, t, /, index, trap=True):
        """Off by a constant, and at the last step badly so where the sample has been put right."""
        m = reference(x, t) + 0.02
        if trap and t == PLAN.timestep[-1]:
            near = np.abs(x - seen["right"][index]).mean() < 0.6 * np.abs(seen["wrong"] - seen["right"]).mean()
            m = m + 5 * near * (index >= 24 - harmed)[:, None, None, None]
        return m.astype(np.float32)

    sample(PLAN, reference, NOISE, on_step=keep("right"))
    sample(PLAN, lambda x, t: quantized(x, t, index, trap=False), NOISE, on_step=keep("wrong"))
    result = calibrate(PLAN, network, quantized, NOISE, "ibc", conditioning={"index": index})
    last = result.statistics[-1]
    assert (last.trajectory_with > last.trajectory_without) == result.dropped == dropped
    assert result.correction.is_identity == dropped and result.kept.any() != dropped
    assert all((values == 0).all() for values in result.standard_errors.values()) or not dropped


def test_same_input_and_paired_differ():
    quantized = Skewed(0.95, 0.05, 0.1)
    tables = [calibrate(PLAN, reference, quantized, NOISE, m).correction for m in ("tac", "tac-paired")]
    assert not np.array_equal(tables[0].output_gain, tables[1].output_gain)


def test_a_step_that_does_not_help_stays_identity():
    """A solver that answers nonsense is overruled by the held-out samples at every step."""
    from correction.solve import Affine

    def nonsense(sums):
        return Affine(np.full(3, 1.5), np.full(3, 0.5))

    quantized = Skewed(0.99, 0.0)
    result = calibrate(PLAN, reference, quantized, NOISE, Method("bad", nonsense, nonsense))
    assert result.correction.is_identity and not result.kept.any()
    assert all(row.error_none < min(row.error_input, row.error_both) for row in result.statistics)
    assert all((values == 0).all() for values in result.standard_errors.values())


def test_a_method_that_is_not_gated_keeps_all_that_it_found():
    from correction.solve import Affine

    def nonsense(sums):
        return Affine(np.full(3, 1.5), np.full(3, 0.5))

    result = calibrate(PLAN, reference, Skewed(0.99, 0.0), NOISE, Method("bad", nonsense, nonsense, gated=False))
    assert result.kept.all() and not result.dropped
    assert all((getattr(result.correction, name) == 1.5).all() for name in ("input_gain", "output_gain"))


@dataclass(frozen=True)
class Noisy:
    """The reference plus noise that nothing predicts, drawn anew at each call from what the sample is."""

    deviation: float

    def __call__(self, sample, timestep, /, **_):
        seed = np.abs(sample.view(np.uint32).astype(np.uint64).sum()) % 2**32
        noise = np.random.default_rng(int(seed)).standard_normal(sample.shape)
        return (reference(sample, timestep) + self.deviation * noise).astype(np.float32)


def test_less_noise_takes_the_variance_of_the_rest_from_the_fresh_noise():
    method = Method("less", output=METHODS["d2-dpm"].output, gated=False, less_noise=True)
    result = calibrate(NOISY_PLAN, reference, Noisy(0.1), NOISE, method, step_noise=FRESH)
    plan = result.plan
    weight = NOISY_PLAN.b + NOISY_PLAN.w[:, 0] * NOISY_PLAN.q
    # The rest of a linear estimate of unit-variance-like outputs under noise of 0.1 has a deviation of just below 0.1.
    wanted = np.sqrt(np.maximum(NOISY_PLAN.sigma**2 - (weight * 0.1) ** 2, 0))
    np.testing.assert_allclose(plan.sigma, wanted, rtol=0.02, atol=1e-3)
    assert (plan.sigma[:-1] < NOISY_PLAN.sigma[:-1]).all() and plan.sigma[-1] == NOISY_PLAN.sigma[-1] == 0
    assert plan.digest() != NOISY_PLAN.digest()
    assert calibrate(NOISY_PLAN, reference, Noisy(0.1), NOISE, "tac", step_noise=FRESH).plan is NOISY_PLAN
    assert calibrate(PLAN, reference, Noisy(0.1), NOISE, method).plan is PLAN


def test_fresh_noise_stays_where_the_gate_drops_the_output_correction():
    """What remains is that of a correction: where none is kept, the scheduler's own noise is drawn."""
    from correction.solve import Affine

    def nonsense(sums):
        return Affine(np.full(3, 1.5), np.full(3, 0.5))

    method = Method("bad", output=nonsense, less_noise=True)
    result = calibrate(NOISY_PLAN, reference, Noisy(0.1), NOISE, method, step_noise=FRESH)
    assert not result.kept.any() and result.plan is NOISY_PLAN


def test_less_noise_needs_an_output_correction():
    with pytest.raises(UsageError, match="less_noise"):
        Method("odd", input=METHODS["ibc"].input, less_noise=True)


def test_a_gain_that_the_file_would_refuse_becomes_identity():
    result = calibrate(PLAN, reference, Skewed(0.05, 0.0), NOISE, Method("gain", output=METHODS["tac-lsq"].output))
    assert (result.correction.output_gain[0] == 1).all()  # 1/0.05 = 20 > 10


def test_batches_conditioning_and_progress():
    shift = np.linspace(0, 1, 24)
    seen, sizes = [], []

    def quantized(x, t, /, shift):
        sizes.append(len(x))
        return Skewed()(x, t, shift=shift)

    options = {"conditioning": {"shift": shift}, "progress": lambda step, steps: seen.append((step, steps))}
    whole = calibrate(PLAN, reference, quantized, NOISE, "tac", **options)
    assert seen == [(k, 8) for k in range(1, 9)]
    assert max(sizes) == 18
    sizes.clear()
    parts = calibrate(PLAN, reference, quantized, NOISE, "tac", batch_size=5, **options)
    assert max(sizes) == 5
    assert parts.correction.digest() == whole.correction.digest()
    other = calibrate(PLAN, reference, quantized, NOISE, "tac", conditioning={"shift": shift[::-1].copy()})
    assert other.correction.digest() != whole.correction.digest()


class Interrupted(Exception):
    """What a test raises in the middle of a calibration."""


def interrupted_at(step):
    def progress(done, steps):
        if done == step:
            raise Interrupted

    return progress


@pytest.mark.parametrize("plan", [NOISY_PLAN, MULTISTEP_PLAN], ids=["eta1", "multistep"])
@pytest.mark.parametrize("step", [1, 4, 8])
def test_interrupted_and_resumed_equals_uninterrupted(plan, step, tmp_path):
    quantized, path = Skewed(0.95, 0.05, 0.05), tmp_path / "state"
    whole = calibrate(plan, reference, quantized, NOISE, "tac", step_noise=FRESH)
    with pytest.raises(Interrupted):
        calibrate(
            *(plan, reference, quantized, NOISE, "tac"),
            step_noise=FRESH,
            state_file=path,
            progress=interrupted_at(step),
        )
    assert path.exists()
    done = []
    resumed = calibrate(
        *(plan, reference, quantized, NOISE, "tac"),
        step_noise=FRESH,
        state_file=path,
        progress=lambda k, n: done.append(k),
    )
    assert done == list(range(step + 1, 9))
    assert resumed.correction.digest() == whole.correction.digest()
    np.testing.assert_equal(resumed.statistics, whole.statistics)
    for name in NAMES:
        assert np.array_equal(resumed.standard_errors[name], whole.standard_errors[name])
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_another_calibration_is_started_over(tmp_path):
    path, quantized = tmp_path / "state", Skewed()
    variants = [
        {"method": "ibc"},
        {"plan": MULTISTEP_PLAN},
        {"noise": initial_noise(1, "calibration", range(24), SHAPE)},
        {"tag": "another artifact"},
        {"holdout_fraction": 0.5},
        {"conditioning": {"shift": np.ones(24)}},
    ]
    usual = {"plan": PLAN, "reference": reference, "quantized": quantized, "noise": NOISE, "method": "tac"}
    for change in variants:
        with pytest.raises(Interrupted):
            calibrate(**usual, state_file=path, progress=interrupted_at(3))
        done = []
        calibrate(**{**usual, **change}, state_file=path, progress=lambda k, n, done=done: done.append(k))
        assert done[0] == 1, change


def test_a_damaged_state_is_named(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"not a state")
    with pytest.raises(CheckFailed, match=r"state.*delete it"):
        calibrate(PLAN, reference, Skewed(), NOISE, state_file=path)


def test_a_network_that_fails_names_the_step():
    def quantized(x, t):
        return np.full_like(x, np.inf) if t == PLAN.timestep[5] else Skewed()(x, t)

    with pytest.raises(NonFiniteError, match="step 5"):
        calibrate(PLAN, reference, quantized, NOISE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "tack"}, "none, ibc, tac"),
        ({"noise": NOISE[:1]}, "at least 2 samples"),
        ({"holdout_fraction": 0.0}, "holdout_fraction"),
        ({"batch_size": 0}, "batch_size"),
        ({"conditioning": {"shift": np.zeros(3)}}, "'shift' must be a numpy array with 24 rows"),
        ({"plan": NOISY_PLAN}, "step_noise"),
    ],
)
def test_wrong_arguments_are_usage_errors(options, message):
    usual = {"plan": PLAN, "reference": reference, "quantized": Skewed(), "noise": NOISE}
    with pytest.raises(UsageError, match=message):
        calibrate(**{**usual, **options})
