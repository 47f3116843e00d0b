"""A small network from PyTorch through coremltools and the disk, against PyTorch itself."""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.program import Program
from mobile_export.coreml_simulator.ranges import RangeRecorder
from mobile_export.coreml_simulator.simulator import Simulator


class Network(nn.Module):
    """What a UNet is made of, once each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.time = nn.Linear(6, 8)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.layer_norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24, bias=False)
        self.out = nn.Linear(8, 16)
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        skip = self.first(x)  # [1, 8, 8, 8]
        h = F.silu(self.norm(skip)) + self.time(F.silu(torch.cat([torch.sin(t), torch.cos(t)], 1)))[:, :, None, None]
        h = self.down(h)  # [1, 8, 4, 4]
        tokens = h.flatten(2).transpose(1, 2)  # [1, 16, 8]
        q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.qkv(self.layer_norm(tokens)).chunk(3, 2))
        tokens = tokens + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        gate, value = self.out(tokens).chunk(2, 2)
        h = (F.gelu(gate) * value).transpose(1, 2).unflatten(2, (4, 4))
        h = F.interpolate(h, scale_factor=2, mode="nearest")
        return self.last(torch.cat([h, skip], 1))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


def converted(network: Network, target: ct.target, precision: ct.precision, folder: Path) -> Program:
    example = (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3))
    exported = torch.export.export(network, example).run_decompositions({})
    model = ct.convert(
        exported,
        inputs=[
            ct.TensorType(name=name, shape=x.shape, dtype=np.float32) for name, x in zip("xt", example, strict=True)
        ],
        outputs=[ct.TensorType(name="y", dtype=np.float32)],
        minimum_deployment_target=target,
        compute_precision=precision,
        skip_model_load=True,
    )
    model.save(str(folder / "network.mlpackage"))
    return read_package(folder / "network.mlpackage").program()


SAMPLES = {
    "x": torch.randn(5, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
    "t": torch.rand(5, 1, 3, generator=torch.Generator().manual_seed(2)),
}


def eager(network: Network) -> torch.Tensor:
    with torch.no_grad():
        return network(SAMPLES["x"][:, 0], SAMPLES["t"][:, 0])[:, None]


@pytest.mark.parametrize("target", [ct.target.iOS16, ct.target.iOS18], ids=lambda target: target.name)
def test_a_float32_package_is_the_network(network: Network, target: ct.target, tmp_path: Path) -> None:
    program = converted(network, target, ct.precision.FLOAT32, tmp_path)
    want = eager(network)
    for mode in ("declared", "float32"):
        simulator = Simulator(program, mode=mode)  # type: ignore[arg-type]
        torch.testing.assert_close(simulator(SAMPLES)["y"], want, rtol=0, atol=1e-5)
        one = simulator({name: x[0] for name, x in SAMPLES.items()})["y"]
        torch.testing.assert_close(one, want[0], rtol=0, atol=1e-5)


def test_a_float16_package_is_near_the_network_and_says_where_float16_is_tight(
    network: Network, tmp_path: Path
) -> None:
    program = converted(network, ct.target.iOS18, ct.precision.FLOAT16, tmp_path)
    want = eager(network)
    recorder = RangeRecorder(program)
    exact = Simulator(program, mode="float32")(SAMPLES, hook=recorder)["y"]
    rounded = Simulator(program)(SAMPLES)["y"]
    stored, declared = float((exact - want).norm() / want.norm()), float((rounded - want).norm() / want.norm())
    assert 1e-5 < stored < 1e-3, "only the weights are float16"
    assert stored < declared < 3e-3, "so are all values between"

    report = recorder.report()
    assert not any(v.overflowed or v.undefined for v in report.values)
    assert np.float16(1e-5) in [np.float16(c.smallest) for c in report.constants], "the epsilon of the group norm"
