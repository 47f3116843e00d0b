"""Large embeddings: float16 in the artifacts and in the quantized model, which agree; small ones as they are."""

import pytest
import torch
from torch import nn

from mobile_export.backends.backend import Probe
from mobile_export.backends.coreml.backend import CoreMLBackend
from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.models.component import Component
from mobile_export.progress import Progress
from mobile_export.quantize.half_embedding import LARGE, HalfEmbedding, half_embeddings
from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable, quantize_layers

ROWS, WIDTH = LARGE // 32 + 1, 32


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(ROWS, WIDTH), nn.Embedding(4, WIDTH)
        self.mixed = nn.Linear(WIDTH, WIDTH)

    def forward(self, input_ids):
        return self.mixed(self.tokens(input_ids) + self.places(torch.arange(4)))


@pytest.fixture(scope="module")
def component():
    torch.manual_seed(0)
    inputs = {"input_ids": torch.tensor([[0, 7, ROWS - 1, 123]])}
    return Component("text_encoder", Encoder().eval().requires_grad_(False), inputs, "encoder_hidden_states")


@pytest.fixture(scope="module")
def table(component) -> QuantizationTable:
    network, recipe = component.network, Recipe.of("w8a16")
    return quantize_layers(network, observe_layers(network, lambda: network(**component.inputs), recipe), recipe)


def test_only_large_tables_are_halved(component, table):
    assert [type(module) for module in half_embeddings(component.network).values()] == [HalfEmbedding]
    twin = quantized_model(component.network, table)
    assert twin.tokens.table.dtype == torch.float16 and twin.places.weight is component.network.places.weight
    index = torch.tensor([[3, ROWS - 1]])
    assert torch.equal(twin.tokens(index), component.network.tokens(index).half().float())
    assert (twin.tokens.num_embeddings, twin.tokens.embedding_dim) == (ROWS, WIDTH)
    assert component.network.tokens.weight.dtype == torch.float32


@pytest.mark.parametrize("backend", [ExecuTorchBackend(), CoreMLBackend()], ids=lambda each: each.name)
def test_artifacts_hold_halves_and_compute_what_the_quantized_model_computes(component, table, backend, tmp_path):
    path = tmp_path / f"text_encoder{backend.suffix}"
    exported = backend.export(component, table, path, Progress())
    probes = [Probe({"input_ids": torch.tensor([ids]).numpy()}) for ids in ([0, 1, 2, 3], [ROWS - 1, 5, 5, 9])]
    parity = backend.check_parity(component, table, path, exported, probes)
    assert parity.weight_codes_equal and parity.output_max_abs <= 1e-5
    assert 2 * ROWS * WIDTH < backend.describe(path).total_bytes < 2 * ROWS * WIDTH + 60_000
