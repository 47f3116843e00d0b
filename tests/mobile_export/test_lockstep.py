"""Lock-step parity: equal codes where the artifact is right, and a refusal where it is not."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch
from channels_last_cases import rounded_layers
from test_channels_last_unet import ARCHITECTURES

from correction import CheckFailed, UsageError
from mobile_export.backends.backend import LIMITED, Parity, Probe, exceeded
from mobile_export.backends.executorch import backend
from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.backends.executorch.lockstep import TappedNetwork, channels_first, point_shapes
from mobile_export.backends.executorch.unet2d import ChannelsLastUNet
from mobile_export.backends.lockstep import Lockstep, follow
from mobile_export.batch import make_batch
from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable, quantize_layers


def probes_of(model, count=3):
    noise = make_batch(0, "evaluation", range(count), model.sample_shape, None).noise
    times = np.linspace(950, 20, count)
    return [
        Probe(
            {
                "sample": noise[k : k + 1],
                "timestep": times[k : k + 1].astype(np.float32),
                **({"class_labels": np.array([k % 3])} if model.conditional else {}),
            },
            float(times[k]),
        )
        for k in range(count)
    ]


def changed(table, name, **fields):
    return QuantizationTable(table.recipe, {**table.layers, name: dataclasses.replace(table.layers[name], **fields)})


ENDS = {"w4a8": 1, "w8a8": 2}  # where a layer is rounded: ranges found at run time at its input, grids at both ends


@pytest.mark.parametrize("which", ENDS)
def test_artifact_and_quantized_model_agree_at_every_quantization(which, request):
    exported = request.getfixturevalue(which)
    path = exported.bundle.artifact("executorch")
    probes = probes_of(exported.model)
    parity = ExecuTorchBackend().check_parity(
        exported.model.component("unet"), exported.table, path, exported.pair, probes
    )
    assert parity.weight_codes_equal is True
    assert parity.layers == len(exported.table.layers)
    assert parity.quantizations == ENDS[which] * len(rounded_layers(exported.table)) < ENDS[which] * parity.layers
    assert parity.worst_code_step <= 1
    assert parity.flip_rate <= 1e-3
    assert parity.lockstep_output_error <= 1e-5
    assert 0 <= parity.output_max_abs <= 1e-4
    assert parity.declared_error is parity.declared_flip_rate is None and parity.limits == backend.LIMITS
    assert parity.timesteps == tuple(probe.timestep for probe in probes)
    assert parity.activation_codes_compared > 3 * 8 * 64 * parity.layers / 4


@pytest.mark.parametrize("which", ENDS)
def test_the_manifest_records_parity_at_timesteps_of_the_plan(which, request):
    exported = request.getfixturevalue(which)
    recorded = exported.bundle.component("executorch")["conversion_parity"]
    plan = exported.bundle.correction_file("executorch").plan
    assert len(recorded["timesteps"]) == 5 and set(recorded["timesteps"]) <= set(plan.timestep.tolist())
    assert recorded["timesteps"][0] == plan.timestep[0] and recorded["timesteps"][-1] == plan.timestep[-1]
    assert recorded["layers"] == len(exported.table.layers)
    assert recorded["quantizations"] == ENDS[which] * len(rounded_layers(exported.table))
    assert recorded["worst_code_step"] <= 1 and recorded["lockstep_output_error"] <= 1e-5


# A shift of scale and zero point of one layer's grid; a zero point alone moves no value but those at the ends.
@pytest.mark.parametrize("end", ["input", "output"])
@pytest.mark.parametrize(("factor", "shift"), [(1.05, 0), (1.0, 120), (1.0, -120)], ids=["scale", "up", "down"])
def test_a_wrong_activation_grid_is_detected(w8a8, end, factor, shift):
    name = "mid_block.resnets.0.conv2"
    grid = getattr(w8a8.table.layers[name], end)
    moved = ActivationGrid(float(np.float16(grid.scale * factor)), int(np.clip(grid.zero_point + shift, -128, 127)))
    with pytest.raises(CheckFailed, match=r"conversion parity: (flip rate|largest code step|error of the output) is"):
        _without_contents_check(w8a8, changed(w8a8.table, name, **{end: moved}))


def test_a_wrong_weight_is_detected_by_the_constants(w4a8):
    name = "mid_block.resnets.0.conv2"
    weight = w4a8.table.layers[name].weight
    codes = weight.codes.clone()
    codes[0, 0, 0, 0] = -codes[0, 0, 0, 0] if codes[0, 0, 0, 0] not in (0, -8) else 1
    table = changed(w4a8.table, name, weight=dataclasses.replace(weight, codes=codes))
    path = w4a8.bundle.artifact("executorch")
    with pytest.raises(CheckFailed, match=f"does not hold the quantized model's constants: {name}.weight"):
        ExecuTorchBackend().check_parity(w4a8.model.component("unet"), table, path, w4a8.pair, probes_of(w4a8.model))


def test_a_wrong_weight_is_detected_by_its_outputs(w4a8):
    name = "mid_block.resnets.0.conv2"
    weight = w4a8.table.layers[name].weight
    table = changed(w4a8.table, name, weight=dataclasses.replace(weight, codes=weight.codes.flip(0)))
    with pytest.raises(CheckFailed, match="conversion parity: largest code step is"):
        _without_contents_check(w4a8, table)


def _without_contents_check(exported, table):
    """check_parity as if the constants had been found: what the lock-step alone sees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mobile_export.backends.executorch.backend.missing_constants", lambda *_: [])
        path = exported.bundle.artifact("executorch")
        ExecuTorchBackend().check_parity(
            exported.model.component("unet"), table, path, exported.pair, probes_of(exported.model)
        )


def test_a_twin_of_another_program_is_refused(w4a8, monkeypatch):
    """Taps prove something about the shipped artifact only if both compute the same, to the bit."""

    class Other(backend.LoadedProgram):
        def __call__(self, *inputs):
            output, *taps = super().__call__(*inputs)
            return [torch.nextafter(output, output + 1) if taps else output, *taps]

    monkeypatch.setattr(backend, "LoadedProgram", Other)
    with pytest.raises(CheckFailed, match=r"the tapped twin computes something else than .*unet\.pte at timestep 950"):
        path = w4a8.bundle.artifact("executorch")
        ExecuTorchBackend().check_parity(
            w4a8.model.component("unet"), w4a8.table, path, w4a8.pair, probes_of(w4a8.model)
        )


# The same comparison with the channels-last network in eager PyTorch in place of the artifact: every architecture.


def eager_pair(**architecture):
    """(quantized twin, tapped channels-last network, inputs, conditioning) of a random network."""
    unet = tiny.make_unet(**architecture)
    size = unet.config.sample_size if isinstance(unet.config.sample_size, tuple) else (unet.config.sample_size,) * 2
    sample = torch.randn(1, unet.config.in_channels, *size, generator=torch.Generator().manual_seed(0))
    conditioning = {} if unet.config.num_class_embeds is None else {"class_labels": torch.tensor([2])}
    time = torch.tensor([321.0])
    observations = observe_layers(unet, lambda: unet(sample, time, **conditioning))
    table = quantize_layers(unet, observations, Recipe.of("w4a8"))
    tapped = TappedNetwork(ChannelsLastUNet(unet, table.layers).eval())
    return quantized_model(unet, table), tapped, (sample, time, *conditioning.values()), conditioning, table


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_every_architecture_in_lock_step(name):
    twin, tapped, inputs, conditioning, table = eager_pair(**ARCHITECTURES[name])
    output, *taps = tapped(*inputs)

    def run():
        return twin(inputs[0], inputs[1], return_dict=False, **conditioning)[0]

    values = channels_first(dict(zip(tapped.points, taps, strict=True)), point_shapes(twin, run))
    found = follow(twin, run, output, values)
    assert found.points == 2 * len(rounded_layers(table))
    assert found.worst_step <= 1 and found.flip_rate < 1e-3 and found.output_error <= 1e-5
    assert 0 <= found.output_max_abs <= 1e-4


@torch.no_grad()
def test_points_that_do_not_match_are_named():
    twin, tapped, inputs, conditioning, _ = eager_pair()
    output, *values = tapped(*inputs)

    def run():
        return twin(inputs[0], inputs[1], return_dict=False, **conditioning)[0]

    shapes = point_shapes(twin, run)
    last = dict(zip(tapped.points, values, strict=True))
    taps = channels_first({**last, "nowhere.input": output}, shapes)
    assert taps.pop("nowhere.input") is output and set(taps) == set(shapes)
    fewer = {point: tap for point, tap in taps.items() if point != "mid_block.resnets.1.conv1.input"}
    with pytest.raises(CheckFailed, match=r"no value for mid_block.resnets.1.conv1.input"):
        follow(twin, run, output, fewer)
    with pytest.raises(CheckFailed, match=r"1 quantizations that the model lacks, e\.g\. nowhere\.input"):
        follow(twin, run, output, {**taps, "nowhere.input": output})
    point, wrong = "mid_block.resnets.1.conv1.output", torch.zeros(1, 2, 2, 16)
    message = rf"the artifact's value of {point} has shape \(1, 2, 2, 16\), the model's \(1, 16, 4, 4\)"
    with pytest.raises(CheckFailed, match=message):
        follow(twin, run, output, {**taps, point: wrong})
    with pytest.raises(CheckFailed, match=message):
        channels_first({**last, point: wrong}, shapes)


def test_lock_steps_add_up():
    total = Lockstep() + Lockstep(4, 100, 1, 1, 1e-7, 0.1) + Lockstep(4, 300, 3, 2, 1e-8, 0.2)
    assert total == Lockstep(4, 400, 4, 2, 1e-7, 0.2)
    assert total.flip_rate == 0.01 and Lockstep().flip_rate == 0.0


@pytest.mark.parametrize("first", [True, False])
def test_an_output_that_is_nan_at_one_timestep_stays_nan(first):
    good, bad = Lockstep(output_error=1e-7, output_max_abs=1e-7), Lockstep(output_error=np.nan, output_max_abs=np.nan)
    total = bad + good if first else good + bad
    assert np.isnan(total.output_error) and np.isnan(total.output_max_abs)


def parity(**changes):
    values = {"quantizations": 2, "activation_codes_compared": 9, "flip_rate": 0.0, "worst_code_step": 1}
    return Parity(True, 1, **{**values, "lockstep_output_error": 1e-6, "timesteps": (1.0,), **changes})


def test_a_parity_within_its_limits_is_returned():
    fine = parity(limits={"lockstep_output_error": 1e-6, "worst_code_step": 1})
    assert fine.require() is fine and exceeded(dataclasses.asdict(fine)) == {}


@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize(("value", "got"), [(2.5, "is 2.5"), (float("nan"), "is nan"), (None, "was not measured")])
def test_a_value_beyond_its_limit_is_named_and_refused(name, value, got):
    wrong = parity(**{name: value}, limits={name: 2})
    with pytest.raises(CheckFailed, match=rf"conversion parity: {LIMITED[name]} {got}, at most 2 is allowed"):
        wrong.require()
    assert list(exceeded(dataclasses.asdict(wrong))) == [name]


def test_other_constants_are_refused_whatever_the_limits():
    with pytest.raises(CheckFailed, match="does not hold the quantized model's constants"):
        dataclasses.replace(parity(), weight_codes_equal=False).require()


def test_limits_of_what_is_no_number_of_a_parity_are_refused():
    with pytest.raises(UsageError, match="a parity has no limit of layers, speed: choose from worst_code_step, flip"):
        parity(limits={"speed": 1, "layers": 2, "flip_rate": 0})
