"""The device loop: its arithmetic, its identity, its complaints."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toys import reference, small_plan

from correction import Correction, GuidedDenoiser, NonFiniteError, TableError, UsageError, initial_noise, sample
from correction.loop import correct

NOISE = initial_noise(0, "evaluation", range(2), (3, 4, 4))
FRESH = np.stack([initial_noise(9 + i, "evaluation", range(2), (3, 4, 4)) for i in range(4)])


def by_hand(plan, noise, fresh, correction):
    """The loop of the specification, one element at a time, every operation rounded to float32."""
    f = np.float32
    out = np.empty_like(noise)
    xs = f(plan.init_sigma) * noise
    histories = {place: [] for place in np.ndindex(noise.shape)}
    for i in range(plan.steps):
        for place in np.ndindex(noise.shape):
            c = place[1]
            xs[place] = f(f(correction.input_gain[i, c] * xs[place]) + correction.input_bias[i, c])
        scaled = plan.input_scale[i] * xs
        ms = reference(scaled, float(plan.timestep[i]))
        for place in np.ndindex(noise.shape):
            c, x = place[1], xs[place]
            m = f(f(correction.output_gain[i, c] * ms[place]) + correction.output_bias[i, c])
            y = f(f(plan.p[i] * x) + f(plan.q[i] * m))
            if plan.clip[i] > 0:
                y = min(max(y, -plan.clip[i]), plan.clip[i])
            histories[place].insert(0, y)
            x = f(f(plan.a[i] * x) + f(plan.b[i] * m))
            for j in range(plan.history):
                if plan.w[i, j] != 0:
                    x = f(x + f(plan.w[i, j] * histories[place][j]))
            if plan.sigma[i] != 0:
                x = f(x + f(plan.sigma[i] * fresh[i][place]))
            out[place] = x
        xs = out.copy()
    return out


def some_correction(steps=4, channels=3):
    random = np.random.default_rng(1)
    gains = [random.uniform(0.9, 1.1, (steps, channels)) for _ in range(2)]
    biases = [random.uniform(-0.1, 0.1, (steps, channels)) for _ in range(2)]
    return Correction(gains[0], biases[0], gains[1], biases[1])


def test_the_loop_is_the_specification_bit_for_bit():
    plan, correction = small_plan(history=3), some_correction()
    ours = sample(plan, reference, NOISE, correction, FRESH)
    assert ours.dtype == np.float32
    assert ours.tobytes() == by_hand(plan, NOISE, FRESH, correction).tobytes()


def test_identity_is_bit_identical_to_no_correction():
    plan = small_plan()
    one = sample(plan, reference, NOISE, None, FRESH)
    assert one.tobytes() == sample(plan, reference, NOISE, Correction.identity(4, 3), FRESH).tobytes()
    assert one.tobytes() != sample(plan, reference, NOISE, some_correction(), FRESH).tobytes()


def test_an_identity_row_keeps_the_sign_of_zero():
    x = np.array([-0.0, 0.0, -1.0], np.float32).reshape(1, 1, 1, 3)
    assert correct(np.ones(1, np.float32), np.zeros(1, np.float32), x).tobytes() == x.tobytes()


def test_the_batch_does_not_matter():
    plan = small_plan()
    whole = sample(plan, reference, NOISE, None, FRESH)
    parts = [sample(plan, reference, NOISE[k : k + 1], None, FRESH[:, k : k + 1]) for k in range(2)]
    assert whole.tobytes() == np.concatenate(parts).tobytes()


def test_on_step_sees_the_corrected_sample_the_corrected_output_and_the_clipped_converted_output():
    plan, correction, seen = small_plan(), some_correction(), []
    last = sample(plan, reference, NOISE, correction, FRESH, on_step=lambda i, x, m, y: seen.append((i, x, m, y)))
    assert [row[0] for row in seen] == [0, 1, 2, 3]
    expected = correction.input_gain[0][:, None, None] * NOISE + correction.input_bias[0][:, None, None]
    assert np.array_equal(seen[0][1], expected)
    raw = reference(plan.input_scale[0] * expected, float(plan.timestep[0]))
    assert np.array_equal(
        seen[0][2], correction.output_gain[0][:, None, None] * raw + correction.output_bias[0][:, None, None]
    )
    assert np.abs(seen[0][3]).max() == 1.0
    assert last.shape == NOISE.shape


def test_conditioning_reaches_the_denoiser():
    shift = np.array([0.0, 1.0])
    plan = small_plan()
    plain = sample(plan, reference, NOISE, None, FRESH)
    shifted = sample(plan, reference, NOISE, None, FRESH, conditioning={"shift": shift})
    assert np.array_equal(plain[0], shifted[0]) and not np.array_equal(plain[1], shifted[1])


def test_noise_is_not_changed_in_place():
    noise = NOISE.copy()
    sample(small_plan(), reference, noise, some_correction(), FRESH)
    assert np.array_equal(noise, NOISE)


def test_non_finite_values_name_the_step():
    plan = small_plan()

    def broken(x, t):
        return np.full_like(x, np.nan) if t == plan.timestep[2] else reference(x, t)

    with pytest.raises(NonFiniteError, match=r"model output.*step 2.*timestep 19") as caught:
        sample(plan, broken, NOISE, None, FRESH)
    assert (caught.value.stage, caught.value.step) == ("model output", 2)
    growing = small_plan(a=np.full(4, 2.0))
    with pytest.raises(NonFiniteError, match=r"sample.*step 0"):
        sample(growing, lambda x, t: 0 * x, np.full_like(NOISE, 3e38), None, FRESH)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample(small_plan(), reference, NOISE), "step_noise"),
        (lambda: sample(small_plan(), reference, NOISE, None, FRESH[:3]), "step_noise must have shape"),
        (lambda: sample(small_plan(), reference, NOISE, None, lambda i: FRESH[i, :1]), "step_noise of step 0"),
        (lambda: sample(small_plan(), reference, NOISE.astype(np.float64), None, FRESH), "float64"),
        (lambda: sample(small_plan(), reference, NOISE[0], None, FRESH), r"\(B, C, H, W\)"),
        (lambda: sample(small_plan(), reference, NOISE, Correction.identity(3, 3), FRESH), "3 steps"),
        (lambda: sample(small_plan(), reference, NOISE, Correction.identity(4, 1), FRESH), "1 channels"),
        (lambda: sample(small_plan(), lambda x, t: x[:1], NOISE, None, FRESH), "denoiser must return"),
        (lambda: sample(small_plan(), lambda x, t: x.astype(np.float64), NOISE, None, FRESH), "float64"),
    ],
)
def test_wrong_arguments_are_usage_errors(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_guidance_mixes_two_calls_and_scale_one_is_one_call():
    calls = []

    def network(x, t, /, label):
        calls.append(label.copy())
        return (x * label[:, None, None, None]).astype(np.float32)

    label, null = np.array([2.0, 3.0]), np.array([1.0])
    m = GuidedDenoiser(network, 1.5, {"label": null})(NOISE, 5.0, label=label)
    unconditional, conditional = (NOISE * np.float32(1), (NOISE * label[:, None, None, None]).astype(np.float32))
    assert np.array_equal(m, unconditional + np.float32(1.5) * (conditional - unconditional))
    assert m.dtype == np.float32 and [len(call) for call in calls] == [2, 2]
    calls.clear()
    assert np.array_equal(GuidedDenoiser(network, 1.0, {"label": null})(NOISE, 5.0, label=label), conditional)
    assert len(calls) == 1
    with pytest.raises(UsageError, match="nan"):
        GuidedDenoiser(network, float("nan"))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"timestep": [9, 9.5, 3, 1]}, "timesteps-not-decreasing"),
        ({"timestep": [9, 4, 3, -1]}, "bad-plan"),
        ({"p": [1, 2, np.nan, 1]}, "not-finite"),
        ({"q": [1, 2, 1e300, 1]}, "not-finite"),
        ({"a": [1, 2, 3]}, "wrong-shape"),
        ({"sigma": [0, -1, 0, 0]}, "bad-plan"),
        ({"input_scale": [1, 0, 1, 1]}, "bad-plan"),
        ({"clip": [1, -1, 1, 1]}, "bad-plan"),
        ({"init_sigma": 0.0}, "bad-plan"),
        ({"init_sigma": float("inf")}, "not-finite"),
        ({"w": np.ones((4, 2))}, "bad-plan"),
        ({"w": np.zeros((4, 9))}, "too-much-history"),
        ({"w": np.zeros(4)}, "wrong-shape"),
        ({"prediction_type": "noise"}, "bad-metadata"),
        ({"scheduler_config": {"x": float("nan")}}, "bad-metadata"),
        ({"b": ["x"] * 4}, "wrong-dtype"),
    ],
)
def test_invalid_plans_are_refused_by_name(changes, name):
    with pytest.raises(TableError) as caught:
        small_plan(**changes)
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("tables", "name"),
    [
        ({"output_gain": np.full((2, 3), 11.0)}, "gain-out-of-bounds"),
        ({"input_gain": np.zeros((2, 3))}, "gain-out-of-bounds"),
        ({"input_bias": np.full((2, 3), np.inf)}, "not-finite"),
        ({"output_bias": np.zeros((3, 3))}, "wrong-shape"),
        ({"output_gain": np.ones(3)}, "wrong-shape"),
    ],
)
def test_invalid_corrections_are_refused_by_name(tables, name):
    identity = Correction.identity(2, 3)
    names = ("output_gain", "output_bias", "input_gain", "input_bias")
    with pytest.raises(TableError) as caught:
        Correction(**{n: tables.get(n, getattr(identity, n)) for n in names})
    assert caught.value.name == name


def test_tables_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="read-only"):
        small_plan().a[0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        Correction.identity(2, 3).output_gain[0] = 2.0


def test_the_package_alone_needs_neither_torch_nor_diffusers():
    program = "import sys, correction; print(sorted({'torch', 'diffusers', 'mobile_export'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
