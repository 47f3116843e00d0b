"""Lowering: one delegate holds everything, shortcuts change no byte, what was patched is put back."""

import dataclasses
import gc
import logging

import executorch.backends.xnnpack._passes as passes
import executorch.exir.backend.backend_api as backend_api
import executorch.exir.backend.canonical_partitioners.group_partitioner as group_partitioner
import executorch.exir.verification.verifier as verifier
import numpy as np
import pytest
import torch
import torch.fx.passes.infra.partitioner as partitioner
import torch.fx.traceback as traceback
import torch.nn.functional as F
from executorch.exir.lowered_backend_module import LoweredBackendModule
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase

from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.backends.executorch.generic_network import GenericNetwork
from mobile_export.backends.executorch.lowering import lower
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.backends.executorch.shortcuts import NEEDS
from mobile_export.backends.executorch.unet2d import ChannelsLastUNet
from mobile_export.metrics import psnr
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import quantize_layers


@pytest.fixture(scope="module")
def float_artifact(model):
    return lower(ChannelsLastUNet(model.unet, {}), model.example_inputs())


def test_one_delegate_and_only_the_class_embedding_outside_of_it(w4a8, w8a8, float_artifact):
    for lowered in (w4a8.pair.shipped, w4a8.pair.tapped, float_artifact):
        assert (lowered.delegates, lowered.undelegated) == (1, {"aten.embedding.default": 1})
    for lowered in (w8a8.pair.shipped, w8a8.pair.tapped):
        assert (lowered.delegates, lowered.undelegated) == (1, {})


def test_the_file_itself_says_the_same(w4a8, w8a8):
    backend = ExecuTorchBackend()
    for exported, outside in ((w4a8, {"aten::embedding": 1}), (w8a8, {})):
        path = exported.bundle.artifact("executorch")
        found = backend.describe(path)
        assert path.read_bytes() == exported.pair.shipped.data
        assert (found.delegates, found.undelegated) == (1, outside)
        assert found.total_bytes == path.stat().st_size == sum(found.size_parts.values())
        assert min(found.size_parts.values()) > 0
        # Input and output of the delegate, at the least, are planned: two float images.
        assert found.planned_memory_bytes >= 2 * 4 * 3 * 8 * 8


def test_shortcuts_change_no_byte(w8a8):
    """Also: a second lowering of the same network gives the same bytes."""
    network = ChannelsLastUNet(w8a8.model.unet, w8a8.table.layers).eval()
    plainly = lower(network, w8a8.model.example_inputs(), shortcuts=False)
    assert plainly == w8a8.pair.shipped


class Unexportable(nn.Module):
    def forward(self, x):
        return x + 1 if float(x.sum()) > 0 else x  # torch.export cannot follow a branch on data


def patched():
    viewers = partitioner._DependencyViewer, group_partitioner._DependencyViewer
    program = ExportedProgram.run_decompositions, ExportedProgram._validate
    return (
        passes._transform,
        traceback.copy,
        backend_api.copy,
        *viewers,
        *program,
        PassBase.__call__,
        GraphModule.recompile,
        verifier._check_tensor_args_matching_op_allowed_dtype,
        logging.root.manager.disable,
    )


def subclasses(kind):
    return {kind.__name__}.union(*map(subclasses, kind.__subclasses__()))


def test_every_pass_that_may_be_skipped_is_one_of_the_exporters():
    """One of another name would never be skipped, and nothing else would tell."""
    assert set(NEEDS) <= subclasses(PassBase)


@pytest.mark.parametrize("collecting", [True, False])
def test_patches_are_taken_back_even_after_an_error(collecting):
    before = patched()
    (gc.enable if collecting else gc.disable)()
    try:
        with pytest.raises(Exception, match="data-dependent"):
            lower(Unexportable(), (torch.ones(2),))
        assert gc.isenabled() == collecting
    finally:
        gc.enable()
    assert patched() == before


def test_the_float_artifact_is_the_network(model, float_artifact):
    """With the quantizer off nothing is rounded, so artifact and network agree to float noise."""
    program = LoadedProgram(float_artifact.data, "float")
    generator = torch.Generator().manual_seed(0)
    for timestep, label in ((999.0, 0), (500.0, 1), (0.0, 3)):
        inputs = torch.randn(1, 3, 8, 8, generator=generator), torch.tensor([timestep]), torch.tensor([label])
        theirs = model.unet(inputs[0], inputs[1], class_labels=inputs[2]).sample
        ours = program(*inputs)[0]
        assert float((ours - theirs).norm() / theirs.norm()) <= 1e-5
        assert psnr(ours.numpy(), theirs.numpy(), peak=float(np.ptp(theirs.numpy())))[0] >= 35


def test_the_quantized_artifact_takes_the_bits_asked(w4a8, w8a8, float_artifact):
    """Constants in the file: nibbles or bytes for quantized weights, float for what was left out."""
    for exported, outside in ((w4a8, 0), (w8a8, 0)):
        parts = ExecuTorchBackend().describe(exported.bundle.artifact("executorch")).size_parts
        layers = exported.table.layers.values()
        ideal = sum(w.codes.numel() * w.bits / 8 for w in (layer.weight for layer in layers))
        scales_and_biases = sum(8 * len(layer.float_bias) for layer in layers)
        kept = sum(
            4 * exported.model.unet.get_submodule(name).weight.numel()
            for name in exported.table.float_layers(exported.model.unet)
        )
        least = ideal + scales_and_biases + kept
        assert least <= parts["weights, scales and biases"] <= 1.35 * least, outside


class Products(nn.Module):
    """A product with codes, one with float weights, and a table that stays outside of the delegate."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.table = nn.Embedding(5, 40)
            self.coded, self.plain = nn.Linear(40, 30), nn.Linear(30, 20)

    def forward(self, index):
        return self.plain(self.coded(self.table(index)))


@pytest.fixture(scope="module")
def products():
    network = Products().requires_grad_(False)
    table = quantize_layers(network, {}, Recipe.from_dict({"precision": "w8a16", "layers": {"plain": "float"}}))
    return GenericNetwork(network, table.layers)


INDEX = (torch.tensor([[1, 4, 2]]),)


def test_a_program_goes_into_a_file_instead(products, tmp_path):
    kept, written = lower(products, INDEX), lower(products, INDEX, into=tmp_path / "program.pte")
    assert (tmp_path / "program.pte").read_bytes() == kept.data
    assert written == dataclasses.replace(kept, data=b"")
    assert (kept.delegates, kept.undelegated) == (1, {"aten.embedding.default": 1})


def test_shortcuts_change_no_byte_of_a_network_with_a_table(products):
    assert lower(products, INDEX, shortcuts=False) == lower(products, INDEX)


class Function(nn.Module):
    """A function of an image (2, 8, 6, 6), with a convolution before it."""

    def __init__(self, function) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.convolution, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.function = function

    def forward(self, x):
        return self.function(self.convolution(x), self)


def attention(x, _):
    x = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(x, x, x)


# What passes of the exporter are for, and operators that are composed of others or give views.
FUNCTIONS = {
    "narrow": lambda x, _: x.narrow(2, 1, 3) * 2,
    "views of a view": lambda x, _: x.narrow(2, 1, 3).unflatten(1, (2, 4)).movedim(1, 2).contiguous(),
    "shapes": lambda x, _: x.permute(0, 2, 3, 1).reshape(2, 9, 32) + x.reshape(2, 9, 32).mT.reshape(2, 9, 32),
    "from the end": lambda x, _: x.narrow(-1, -3, 2).mT.reshape(2, -1, 4) + x.argmax(-1).reshape(-1, 2, 4)[:2, :1],
    "chunks": lambda x, _: torch.cat([part.sigmoid() for part in x.chunk(4, 1)[::-1]], 1),
    "split and unbind": lambda x, _: x.split(3, 1)[0] + torch.stack(x.unbind(0)).select(1, 2)[:, None],
    "many parts": lambda x, _: torch.cat([x * n for n in range(7)], 1),
    "transposes": lambda x, _: x.mT.permute(0, 2, 3, 1).flatten(1).t(),
    "expand": lambda x, _: x.mean((2, 3), keepdim=True).expand_as(x) + x.sum(1, keepdim=True),
    "scalars": lambda x, _: 1 - x / 3 + torch.full((1,), 2.0) * x.clamp(min=0.5),
    "integers": lambda x, _: x * torch.arange(6) + x.to(torch.float64).to(torch.float32),
    "activations": lambda x, _: F.silu(F.relu(x)) + F.gelu(x) + F.hardtanh(x),
    "batch norm": lambda x, network: F.relu(network.norm(x)),
    "group norm": lambda x, _: F.group_norm(x, 2),
    "pools": lambda x, _: F.max_pool2d(x, 2, 2) + F.avg_pool2d(x, 2) + F.max_pool2d(x, 2),
    "upsampling": lambda x, _: F.interpolate(x, scale_factor=2.0) + F.interpolate(x, size=12, mode="bilinear"),
    "padding": lambda x, _: F.pad(x, (0, 1, 0, 1)).reshape(-1, 7, 7).max(1).values,
    "paddings": lambda x, _: (
        F.pad(x, (1, 1), value=0.5)[..., :6] + F.pad(x, (2, -1, -1, 1), mode="reflect")[..., 1:] + F.pad(x, (-1, 1))
    ),
    "attention": attention,
    "product": lambda x, _: torch.einsum("nchw,ndhw->ncd", x, x).softmax(-1),
    "products": lambda x, _: x @ x.new_ones(6, 5) + torch.matmul(x[:, :, :, :5].mT, x).mean(2, keepdim=True)[..., :5],
    "softmax": lambda x, _: x.softmax(1) + x.softmax(-1, dtype=torch.float64).float() + x.log_softmax(2),
    "in place": lambda x, _: (x * 2).relu_().add_(1).clamp_(max=3),
    "comparisons": lambda x, _: torch.where(x > 0.1, x, x.abs().sqrt()) ** 2,
    "indices": lambda x, _: x[:, [0, 2]] + x[:, 1:3, ::2].repeat(1, 1, 2, 1),
    "layer norm": lambda x, _: F.layer_norm(x, x.shape[2:]).cumsum(1),
    "one axis": lambda x, _: F.conv1d(x.flatten(2), x.new_ones(4, 8, 3), padding=1),
    "nothing": lambda x, _: F.dropout(x, 0.5, training=False).contiguous().clone(),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_shortcuts_change_no_byte_of(function):
    network, image = Function(function).eval().requires_grad_(False), (torch.rand(2, 8, 6, 6),)
    assert lower(network, image) == lower(network, image, shortcuts=False)


class Bare(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "runs"),
    [
        (lambda x: torch.ops.aten._unsafe_view(F.pad(x, (0, 1)), [2, 48, 7]).softmax(-1), 0),
        (lambda x: F.pad(x, (1, 1, 0, 0), mode="reflect"), 1),
        (lambda x: x.softmax(-1, dtype=torch.float64), 1),
    ],
    ids=["primitives", "a mode of padding", "a change of type"],
)
def test_what_is_one_other_operator_does_not_have_the_network_traced_anew(function, runs, monkeypatch):
    found, run = [], ExportedProgram.run_decompositions
    monkeypatch.setattr(
        ExportedProgram, "run_decompositions", lambda self, *rest: found.append(self) or run(self, *rest)
    )
    lower(Bare(function), (torch.rand(2, 8, 6, 6),))
    assert len(found) == runs


def test_the_types_of_arguments_are_checked_once(products, monkeypatch):
    checked, check = [], verifier._check_tensor_args_matching_op_allowed_dtype
    name = "_check_tensor_args_matching_op_allowed_dtype"
    monkeypatch.setattr(verifier, name, lambda module: checked.append(len(module.graph.nodes)) or check(module))
    lower(products, INDEX)
    (whole,) = checked
    lower(products, INDEX, shortcuts=False)
    assert whole == checked[1] == max(checked)


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"stride": 1}, {"ceil_mode": True}])
def test_poolings_may_leave_their_stride_out(options):
    network, image = Function(lambda x, _: F.max_pool2d(x, 3, **options)).eval(), torch.rand(2, 8, 6, 6)
    (found,) = LoadedProgram(lower(network, (image,)).data, "pooling")(image)
    torch.testing.assert_close(found, network(image).detach())


def test_no_weight_is_copied_for_the_delegate(products, monkeypatch):
    copied = []
    deepcopy = torch.Tensor.__deepcopy__
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", lambda t, memo: copied.append(t.numel()) or deepcopy(t, memo))
    lower(products, INDEX)
    assert {40 * 30, 30 * 20, 5 * 40}.isdisjoint(copied)


def test_nothing_of_what_was_lowered_stays_in_memory(products):
    gc.collect()
    before = lowered_objects()  # of other tests; held here, so that no new object takes an old one's place
    for _ in range(2):
        lower(products, INDEX)
        assert lowered_objects() == before
    with pytest.raises(Exception, match="data-dependent"):
        lower(Unexportable(), (torch.ones(2),))
    assert lowered_objects() == before


def lowered_objects() -> list[object]:
    """What lowering makes and nothing should keep, in the order of their addresses."""
    return sorted((o for o in gc.get_objects() if type(o) in (LoweredBackendModule, ExportedProgram)), key=id)
