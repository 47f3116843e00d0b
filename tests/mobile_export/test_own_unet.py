"""A bare network as a model, whatever it calls its inputs and however it hands over its result."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from torch import nn

from correction import CheckFailed, UsageError
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser
from mobile_export.models.reference import reference_images
from mobile_export.models.request import Request

SHAPE = (2, 6, 4)


class Own(nn.Module):
    """result: how the output is handed over."""

    def __init__(self, result: str = "tensor", classes: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.mix = nn.Conv2d(2, 2, 3, padding=1)
            self.names = nn.Embedding(classes, 2) if classes else None
        self.result = result

    def forward(self, x, t, class_labels=None):
        y = self.mix(x) * (1 + t / 1000)[:, None, None, None]
        y = y if class_labels is None else y + self.names(class_labels)[:, :, None, None]
        return {"tensor": y, "tuple": (y, None), "object": SimpleNamespace(sample=y), "wrong": y[:, :1]}[self.result]


class Named(Own):
    def forward(self, sample, timestep, class_labels=None):
        return super().forward(sample, timestep, class_labels)


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, prediction_type="sample")


def of(network: nn.Module, **options) -> DiffusionModel:
    return DiffusionModel.of_module(network, SHAPE, scheduler(), name="own", **options)


@pytest.mark.parametrize("result", ["tensor", "tuple", "object"])
def test_results_of_every_kind(result):
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = Own()(x, torch.full((3,), 40.0)).numpy()
    assert np.array_equal(TorchDenoiser(of(Own(result)).unet)(x.numpy(), 40.0), expected)


def test_what_is_known_of_it():
    model = of(Own(classes=3), conditioning={"class_labels": torch.zeros(1, dtype=torch.int64)}, classes=("a", "b"))
    assert (model.name, model.kind, model.pipeline, model.sample_shape) == ("own", "Own", "", SHAPE)
    assert model.image_shape == SHAPE and model.conditional and model.classes == ("a", "b")
    assert model.component_names == ("unet",) and isinstance(model.scheduler(), DDIMScheduler)
    component = model.component("unet")
    assert list(component.inputs) == ["sample", "timestep", "class_labels"] and component.output == "noise_pred"
    assert component.result.shape == (1, *SHAPE) and component.parameters == sum(
        p.numel() for p in Own(classes=3).parameters()
    )
    model.release()
    assert model.unet is component.network


def test_names_of_layers_are_its_own_where_it_can_be_called_by_name():
    assert "mix" in dict(of(Named()).unet.named_modules())
    assert "network.mix" in dict(of(Own()).unet.named_modules())


def test_the_reference_samples_it_as_diffusers_would():
    network = Own(classes=3)
    model = of(network, conditioning={"class_labels": torch.zeros(1, dtype=torch.int64)}, null_label=2)
    ours = reference_images(model, Request(labels=(1, 0, 1), seed=5, steps=6, guidance=3.0, noise="torch", eta=1.0))
    generator, theirs = torch.Generator().manual_seed(5), scheduler()
    x, labels = torch.randn(3, *SHAPE, generator=generator), torch.tensor([1, 0, 1])
    theirs.set_timesteps(6)
    with torch.inference_mode():
        for t in theirs.timesteps:
            time = torch.full((3,), float(t))
            none, given = network(x, time, torch.tensor([2, 2, 2])), network(x, time, labels)
            x = theirs.step(none + 3 * (given - none), t, x, eta=1.0, generator=generator).prev_sample
    assert np.abs(ours - x.clamp(-1, 1).numpy()).max() <= 1e-4 and (x.abs() < 1).float().mean() > 0.2


def test_the_digest_is_that_of_weights_and_scheduler():
    first, changed = of(Named()), Named()
    changed.mix.bias.data[0] += 1e-6
    assert first.digest == of(Named()).digest != of(changed).digest
    other = DiffusionModel.of_module(Named(), SHAPE, EulerDiscreteScheduler(), name="own")
    assert other.digest != first.digest


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        UsageError, match=r"own: the network must give \[1, 2, 6, 4\] for a sample of it, it gave \[1, 1, 6, 4\]"
    ):
        of(Own("wrong"))
    with pytest.raises(UsageError, match=r"own: weight mix\.weight is torch\.float16; supported: torch\.float32"):
        of(Own().half())
    broken = Own()
    broken.mix.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckFailed, match=r"'own': weight mix\.weight holds NaN"):
        of(broken)


def test_the_example_exports(tmp_path, capsys):
    path = Path(__file__).parents[2] / "examples" / "own_unet.py"
    spec = importlib.util.spec_from_file_location("own_unet", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(tmp_path / "bundle", ("coreml",))
    assert (tmp_path / "bundle" / "manifest.json").is_file() and "OwnUNet with 10419 weights" in capsys.readouterr().out
