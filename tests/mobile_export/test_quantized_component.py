"""QuantizedComponent: float weights that are forgotten are gone, and nothing needs them."""

import torch
from tiny_pipelines import saved

from mobile_export.backends.backend import Probe
from mobile_export.models.component import call_network
from mobile_export.models.diffusion_model import load_model
from mobile_export.progress import Progress
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantized_component import quantize_network


def test_forgotten_floats_leave_no_file_in_memory_and_the_quantized_model_runs():
    """Weights are views of a file's bytes, all of which stay as long as one view does."""
    component = load_model(str(saved("sd-image"))).component("text_encoder")
    probe = Probe({name: tensor.numpy() for name, tensor in component.inputs.items()})
    quantized, _ = quantize_network(component, Recipe.of("w8a16"), [probe], Progress())
    before = call_network(quantized_model(component.network, quantized.table), component.inputs)

    assert any(each.untyped_storage().nbytes() > each.nbytes for each in component.network.parameters())
    quantized.forget_floats()
    assert all(component.network.get_submodule(name).weight.is_meta for name in quantized.table.layers)
    rest = [tensor for tensor in component.network.state_dict().values() if not tensor.is_meta]
    rest += [layer.float_bias for layer in quantized.table.layers.values()]
    assert len(rest) > 10
    assert all(each.untyped_storage().nbytes() == each.nbytes for each in rest)
    assert torch.equal(call_network(quantized_model(component.network, quantized.table), component.inputs), before)
