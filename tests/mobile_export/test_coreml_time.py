"""The sinusoids of the timestep in a package: right to the last float16 digit at every timestep."""

import coremltools as ct
import numpy as np
import pytest
import torch
from coreml_cases import METADATA
from coremltools.converters.mil.mil import Builder as mb
from diffusers.models.embeddings import Timesteps
from torch import nn

from mobile_export.backends.coreml import conversion
from mobile_export.backends.coreml.network import Interface
from mobile_export.backends.coreml.package import save_package
from mobile_export.backends.coreml.time_embedding import TimeWaves
from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.simulator import Simulator

CHANNELS = 48


class Waves(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.waves = TimeWaves(Timesteps(CHANNELS, **options))

    def forward(self, timestep):
        return self.waves(timestep) * 1.0 + 0.0 * self.waves(timestep)


def simulated(folder) -> np.ndarray:
    """(1000, CHANNELS): what a package gives at each timestep, in the arithmetic that it declares."""
    network = Waves(flip_sin_to_cos=True, downscale_freq_shift=0)
    package = conversion.convert(network, Interface({"timestep": torch.tensor([500.0])}), {}, "ios18")
    save_package(package, folder / "waves.mlpackage", METADATA)
    simulator = Simulator(read_package(folder / "waves.mlpackage").program(), "declared")
    return simulator({"timestep": torch.arange(1000.0)[:, None]})["noise_pred"][:, 0].numpy()


def exact() -> np.ndarray:
    half = CHANNELS // 2
    frequencies = np.exp(-np.log(10000.0) * np.arange(half) / half)
    angle = np.arange(1000.0)[:, None] * frequencies
    return np.concatenate([np.cos(angle), np.sin(angle)], 1)


def test_every_timestep_is_right_to_float16_rounding(tmp_path):
    assert np.abs(simulated(tmp_path) - exact()).max() < 2**-11


def test_in_float16_throughout_the_late_timesteps_would_be_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "_Float32Operations", set)
    error = np.abs(simulated(tmp_path) - exact()).max(1)
    assert error[999] > 0.1 and error[1] < 2**-9


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shift", [0, 1])
def test_the_waves_are_those_of_diffusers(flip, shift):
    source = Timesteps(CHANNELS, flip_sin_to_cos=flip, downscale_freq_shift=shift)
    timesteps = torch.tensor([0.0, 1.0, 37.5, 500.0, 999.0])
    assert torch.equal(TimeWaves(source)(timesteps), source(timesteps))


@pytest.mark.parametrize(
    ("end", "shape", "all_of_them"),
    [("sin", (1, 4), True), ("sin", (1, 4, 2), False), ("reduce_argmin", (1, 4, 2, 2), True), ("exp", (1, 4), None)],
)
def test_what_is_computed_in_float32_in_a_network_of_any_length(end, shape, all_of_them):
    @mb.program(input_specs=[mb.TensorSpec(shape)], opset_version=ct.target.iOS18)
    def program(x):
        for _ in range(2000):
            x = mb.sigmoid(x=x)
        return getattr(mb, end)(x=x)

    kept = conversion._Float32Operations()
    *before, last = (op for op in program.functions["main"].operations if op.op_type != "const")
    assert (last in kept) == (all_of_them is not None)
    assert {op in kept for op in before} == {bool(all_of_them)} and len(before) == 2000
