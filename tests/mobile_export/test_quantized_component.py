"""QuantizedComponent: float weights that are forgotten are gone, and nothing needs them."""

import gc
import shutil
from pathlib import Path

import pytest
import torch
from tiny_pipelines import saved

from mobile_export.backends.backend import Probe
from mobile_export.models.component import call_network
from mobile_export.models.diffusion_model import load_model
from mobile_export.progress import Progress
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantized_component import quantize_network


def mapped(folder: Path) -> bool:
    """Whether a file in `folder` is mapped into memory."""
    return str(folder.resolve()) in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="this system does not list its mappings")
def test_forgotten_floats_leave_no_file_in_memory_and_the_quantized_model_runs(tmp_path):
    """Weights are views of a mapped file, all of which stays in memory as long as one view does."""
    source = shutil.copytree(saved("sd-image"), tmp_path / "model")
    model = load_model(str(source))
    component = model.component("text_encoder")
    probe = Probe({name: tensor.numpy() for name, tensor in component.inputs.items()})
    quantized, _ = quantize_network(component, Recipe.of("w8a16"), [probe], Progress())
    model.release()
    assert mapped(source / "text_encoder")
    before = call_network(quantized_model(component.network, quantized.table), component.inputs)

    quantized.forget_floats()
    gc.collect()
    assert not mapped(source / "text_encoder")
    assert all(component.network.get_submodule(name).weight.is_meta for name in quantized.table.layers)
    assert torch.equal(call_network(quantized_model(component.network, quantized.table), component.inputs), before)
