"""Weights in 8 or 4 bits with float32 activations in a `.pte`: stored as such, nothing else changes."""

import dataclasses
import hashlib
from dataclasses import dataclass

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from torch import nn

from correction import CheckFailed
from mobile_export.backends.backend import Probe
from mobile_export.backends.executorch import lowering
from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.backends.executorch.contents import Contents, missing_constants, read_contents, stored_bytes
from mobile_export.backends.executorch.generic_network import GenericNetwork
from mobile_export.backends.executorch.layers import MatrixProduct
from mobile_export.backends.executorch.lowering import Lowered, lower
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.models.component import Component
from mobile_export.models.text_encoder import TextEncoder
from mobile_export.progress import Progress
from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable, quantize_layers


class Small(nn.Module):
    """Every kind of product: kernels of 3 and 1, a stride of 2, odd numbers of inputs, one layer without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.down = nn.Conv2d(5, 8, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(8, 7, 1, bias=False)
        self.last = nn.Linear(7, 6)

    def forward(self, sample):
        x = torch.sigmoid(self.first(sample))
        x = self.mix(torch.sigmoid(self.down(x)))
        return self.last(x.flatten(2).transpose(1, 2))


@dataclass(frozen=True)
class Case:
    network: nn.Module
    table: QuantizationTable
    lowered: Lowered

    @property
    def contents(self) -> Contents:
        return read_contents(self.lowered.data, "artifact")


def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Small().eval().requires_grad_(False)


def sample(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 3, 8, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def cases():
    found = {}
    for precision in ("w8a16", "w4a16"):
        table = quantize_layers(small(), {}, Recipe.of(precision))
        found[precision] = Case(small(), table, lower(GenericNetwork(small(), table.layers), (sample(),)))
    return found


@pytest.fixture(params=["w8a16", "w4a16"])
def case(request, cases):
    return cases[request.param]


def relative(theirs, ours):
    return float((theirs - ours).norm() / ours.norm())


def test_all_is_one_delegate(case):
    assert (case.lowered.delegates, case.lowered.undelegated) == (1, {})


def test_it_computes_what_the_quantized_model_computes(case):
    """And not what the float network computes."""
    program, model = LoadedProgram(case.lowered.data, "small"), quantized_model(case.network, case.table)
    for seed in range(3):
        (ours,) = program(sample(seed))
        assert relative(ours, model(sample(seed))) <= 1e-5
        assert relative(ours, case.network(sample(seed))) >= 1e-3


def test_every_constant_is_in_the_file_byte_for_byte_and_by_digest(case):
    assert case.table.layers.keys() == {"first", "down", "mix", "last"}
    assert missing_constants(case.contents, case.table) == []
    expected = {}
    for name, layer in case.table.layers.items():
        parts = stored_bytes(layer)
        assert parts.keys() == ({"weight", "scale"} if name == "mix" else {"weight", "scale", "bias"})
        assert all(part in case.lowered.data for part in parts.values())
        for part, data in parts.items():
            expected[("scale_" if part == "scale" else "") + hashlib.sha256(data).hexdigest()] = len(data)
        if "bias" in parts:
            assert parts["bias"] == case.network.get_submodule(name).bias.numpy().tobytes()
    assert case.contents.constants == expected


def test_another_code_scale_or_bias_is_named(case):
    for name, layer in case.table.layers.items():
        codes, scale, bias = layer.weight.codes.clone(), layer.weight.scale.clone(), layer.float_bias.clone()
        codes.view(-1)[0] += -1 if codes.view(-1)[0] > 0 else 1
        scale[-1] *= 2
        bias[-1] += 1e-3
        changes = {
            "weight": {"weight": dataclasses.replace(layer.weight, codes=codes)},
            "scale": {"weight": dataclasses.replace(layer.weight, scale=scale)},
            "bias": {"float_bias": bias},
        }
        for part, change in changes.items():
            layers = {**case.table.layers, name: dataclasses.replace(layer, **change)}
            changed = QuantizationTable(case.table.recipe, layers)
            assert missing_constants(case.contents, changed) == [f"{name}.{part}"]


def test_codes_take_the_bits_asked(cases):
    """All else has the same size, so that files differ by what 4 bits save: half, but for odd rows."""
    shapes = {"first": (5, 27), "down": (8, 45), "mix": (7, 8), "last": (6, 7)}
    total = {name: sum(case.contents.constants.values()) for name, case in cases.items()}
    assert total["w8a16"] - total["w4a16"] == sum(rows * (columns // 2) for rows, columns in shapes.values())
    codes = {name: {k: len(stored_bytes(v)["weight"]) for k, v in c.table.layers.items()} for name, c in cases.items()}
    assert codes["w8a16"] == {name: rows * columns for name, (rows, columns) in shapes.items()}
    assert codes["w4a16"] == {name: rows * ((columns + 1) // 2) for name, (rows, columns) in shapes.items()}


def gridded(table: QuantizationTable) -> QuantizationTable:
    """The same codes with 8-bit activations."""
    grid = ActivationGrid(1 / 32, 3)
    layers = {name: dataclasses.replace(q, input=grid, output=grid) for name, q in table.layers.items()}
    return QuantizationTable(Recipe.of("w8a8"), layers)


def test_programs_with_8_bit_activations_stay_as_the_delegates_own_partitioner_makes_them(cases, monkeypatch):
    network = GenericNetwork(small(), gridded(cases["w8a16"].table).layers)
    ours = lower(network, (sample(),))
    monkeypatch.setattr(lowering, "partitioner", XnnpackPartitioner)
    assert lower(network, (sample(),)) == ours


def test_that_partitioner_alone_leaves_the_codes_outside(cases, monkeypatch):
    """Once it takes these products itself, ours is no longer needed."""
    monkeypatch.setattr(lowering, "partitioner", XnnpackPartitioner)
    lowered = lower(GenericNetwork(small(), cases["w8a16"].table.layers), (sample(),))
    assert lowered.undelegated["quantized_decomposed.dequantize_per_channel.default"] == 4


def test_tensors_are_shared_with_the_layer_and_the_table(cases):
    table, network = cases["w8a16"].table, small()
    product = MatrixProduct("last", network.last, table.layers["last"])
    assert product.weight.codes.data_ptr() == table.layers["last"].weight.codes.data_ptr()
    assert product.bias.data_ptr() == table.layers["last"].float_bias.data_ptr()
    plain = MatrixProduct("last", network.last, None)
    assert plain.weight().data_ptr() == network.last.weight.data_ptr()
    assert plain.bias.data_ptr() == network.last.bias.data_ptr()


def test_a_text_encoder_is_exported_and_compared(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        sizes = {"vocab_size": 40_000, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 9}
        encoder = TextEncoder({**sizes, "num_hidden_layers": 2, "num_attention_heads": 2}).eval().requires_grad_(False)
    tokens = [torch.randint(40_000, (1, 9), generator=torch.Generator().manual_seed(k)) for k in range(3)]
    component = Component("text_encoder", encoder, {"input_ids": tokens[0]}, "encoder_hidden_states")
    table = quantize_layers(encoder, {}, Recipe.of("w8a16"))
    probes = [Probe({"input_ids": each.numpy()}) for each in tokens]
    backend, path = ExecuTorchBackend(), tmp_path / "text_encoder.pte"
    exported = backend.export(component, table, path, Progress())
    parity = backend.check_parity(component, table, path, exported, probes)
    assert (parity.layers, parity.quantizations, parity.activation_codes_compared) == (len(table.layers), 0, 0)
    assert 0 < parity.lockstep_output_error <= 1e-5 and parity.timesteps == ()
    description = backend.describe(path)
    assert (description.delegates, description.undelegated) == (1, {"aten::embedding": 1})
    other = quantize_layers(encoder, {}, Recipe.of("w4a16"))
    with pytest.raises(
        CheckFailed, match=r"does not hold the quantized model's constants: text_model\.encoder\.layers"
    ):
        backend.check_parity(component, other, path, exported, probes)
