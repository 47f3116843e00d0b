"""Networks with too many values to tap at their own size: compared in lock-step on smaller samples, and as they are."""

import dataclasses

import pytest
import torch
from channels_last_cases import quantized, rounded_layers
from diffusers import UNet2DConditionModel
from test_unet2d_condition import LEAST, inputs_of
from tiny_pipelines import text_unet

from correction import CheckFailed
from mobile_export.backends.backend import Probe
from mobile_export.backends.executorch import backend
from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.backends.executorch.reduced import reduced_component
from mobile_export.models.component import Component
from mobile_export.progress import Progress


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return text_unet(**LEAST, sample_size=(32, 40))


@pytest.fixture(scope="module")
def component(unet):
    return Component("unet", unet, inputs_of(unet), "noise_pred")


@pytest.fixture(scope="module")
def table(unet):
    return quantized(unet, inputs_of(unet))


@pytest.fixture
def large(monkeypatch):
    """Whatever is tapped is too much."""
    monkeypatch.setattr(backend, "TAPPED_BYTES", 0)


def probes_of(unet):
    given = [inputs_of(unet, seed) for seed in range(3)]
    return [Probe({n: t.numpy() for n, t in each.items()}, float(each["timestep"])) for each in given]


def test_the_twin_is_smaller_and_the_artifact_is_compared_as_it_is(large, component, table, unet, tmp_path):
    path = tmp_path / "unet.pte"
    pair = ExecuTorchBackend().export(component, table, path, Progress())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["unet.pte", "unet.tapped.pte"]
    parity = ExecuTorchBackend().check_parity(component, table, path, pair, probes_of(unet))
    assert [file.name for file in tmp_path.iterdir()] == ["unet.pte"]
    assert parity.compared_at["sample"] == [1, 4, 8, 8]
    assert parity.layers == len(table.layers) and parity.quantizations == 2 * len(rounded_layers(table))
    assert parity.activation_codes_compared > 0 and parity.worst_code_step <= 1
    assert parity.lockstep_output_error <= 1e-5
    assert 0 <= parity.free_running_error <= 0.05
    assert parity.limits["free_running_error"] == backend.FREE_RUNNING


def test_an_artifact_that_runs_otherwise_at_its_own_size_is_refused(
    large, component, table, unet, tmp_path, monkeypatch
):
    path = tmp_path / "unet.pte"
    pair = ExecuTorchBackend().export(component, table, path, Progress())
    whole = backend.LoadedProgram.__call__

    def turned(self, *inputs):
        return [output.flip(2) for output in whole(self, *inputs)] if self.source == str(path) else whole(self, *inputs)

    monkeypatch.setattr(backend.LoadedProgram, "__call__", turned)
    with pytest.raises(CheckFailed, match=r"difference of the outputs, each on its own.* is [01]\.\d+"):
        ExecuTorchBackend().check_parity(component, table, path, pair, probes_of(unet))


def test_what_is_too_small_to_reduce_is_not(component):
    small = {**component.inputs, "sample": torch.zeros(1, 4, 31, 64)}
    assert reduced_component(dataclasses.replace(component, inputs=small)) is None
    assert reduced_component(dataclasses.replace(component, inputs={"latents": torch.zeros(1, 4, 64, 64)})) is None
    sizes = {(32, 40): (8, 8), (64, 64): (16, 16), (96, 65): (24, 16)}
    for (height, width), expected in sizes.items():
        inputs = {**component.inputs, "sample": torch.zeros(1, 4, height, width)}
        reduced = reduced_component(dataclasses.replace(component, inputs=inputs))
        assert tuple(reduced.inputs["sample"].shape[2:]) == expected
