"""Large convolutions and attentions are computed in pieces, and it shows in nothing but memory."""

import pytest
import torch
from channels_last_cases import quantized
from diffusers.models.upsampling import Upsample2D
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from mobile_export.backends.executorch import layers, pieces
from mobile_export.backends.executorch.attention import attend
from mobile_export.backends.executorch.dynamic_layers import DynamicConvolution
from mobile_export.backends.executorch.layers import Convolution, convolution
from mobile_export.backends.executorch.lowering import lower
from mobile_export.backends.executorch.normalization import GroupNorm
from mobile_export.backends.executorch.pieces import joined
from mobile_export.backends.executorch.residual import Up, activated
from mobile_export.backends.executorch.row_image import RowImage
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.backends.executorch.support import activations_of


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@given(
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.sampled_from([1, 2]),
    padding=st.integers(0, 2),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    most=st.sampled_from([1, 100, 250, 2**25]),
    batch=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
@torch.no_grad()
def test_a_convolution(kernel, stride, padding, size, most, batch):
    layer = nn.Conv2d(3, 4, kernel, stride, padding)
    x = image(batch, 3, *size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "MOST_VALUES", most)
        ours = Convolution("layer", layer, None)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours, layer(x), atol=1e-5, rtol=1e-5)


@given(
    heads=st.sampled_from([1, 2, 4]),
    counts=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    most=st.sampled_from([1, 20, 50, 2**25]),
    batch=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
@torch.no_grad()
def test_an_attention(heads, counts, most, batch):
    queries, others = counts
    query, key, value = image(batch, queries, 8), image(batch, others, 8).flip(-1), image(batch, others, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "MOST_VALUES", most)
        ours = attend(query, key, value, heads)
    split = [x.reshape(batch, -1, heads, 8 // heads).transpose(1, 2) for x in (query, key, value)]
    theirs = functional.scaled_dot_product_attention(*split, scale=1.0).transpose(1, 2).reshape(batch, queries, 8)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@given(
    kernel=st.sampled_from([3, 5]),
    padding=st.integers(0, 3),
    size=st.tuples(st.integers(6, 9), st.integers(6, 9)),
    most=st.sampled_from([1, 400, 2**25]),
    batch=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
@torch.no_grad()
def test_a_normalized_image_that_is_made_row_by_row(kernel, padding, size, most, batch):
    norm, layer = nn.GroupNorm(2, 4), nn.Conv2d(4, 3, kernel, padding=padding)
    norm.weight.data, norm.bias.data = torch.linspace(0.5, 2, 4), torch.linspace(-1, 1, 4)
    x = 3 * image(batch, 4, *size) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "MOST_VALUES", most)
        form = Convolution("layer", layer, None)
        assert form.by_rows((batch, *size, 4)) == (most < 2**25)
        ours = activated(GroupNorm(norm), form, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours, layer(functional.silu(norm(x))), atol=1e-5, rtol=1e-5)


@given(
    size=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    less=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    most=st.sampled_from([1, 500, 2**25]),
)
@settings(max_examples=40, deadline=None)
@torch.no_grad()
def test_an_enlarged_image_that_is_made_row_by_row(size, less, most):
    block, x = Upsample2D(4, use_conv=True), image(1, 4, *size)
    wanted = tuple(2 * side - few for side, few in zip(size, less, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "MOST_VALUES", most)
        ours = Up(block, "up", {})(x.permute(0, 2, 3, 1), wanted).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours, block(x, output_size=wanted), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_whole_image_is_never_made(monkeypatch):
    """The convolution asks for a few rows at a time, each at most with its neighbours."""
    monkeypatch.setattr(pieces, "MOST_VALUES", 2 * 9 * 4 * 6)  # two rows of six pixels
    x, asked = image(1, 12, 6, 4), []

    def rows(first: int, end: int) -> torch.Tensor:
        asked.append((first, end))
        return x[:, first:end]

    form = Convolution("layer", nn.Conv2d(4, 3, 3, padding=1), None)
    torch.testing.assert_close(form.of_rows(RowImage((1, 12, 6, 4), rows)), form(x), atol=1e-6, rtol=1e-6)
    assert asked == [(0, 3), (1, 5), (3, 7), (5, 9), (7, 11), (9, 12)]


class Normalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = GroupNorm(nn.GroupNorm(2, 4))
        self.layer = Convolution("layer", nn.Conv2d(4, 1, 3, padding=1), None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return activated(self.norm, self.layer, x)


def test_a_normalized_image_stands_in_memory_once(monkeypatch):
    """The delegate runs the operations in the order of the graph; counted are values that something still needs."""
    monkeypatch.setattr(pieces, "MOST_VALUES", 2 * 9 * 4 * 16)  # two rows of 16 pixels
    x = image(1, 64, 16, 4)
    graph = torch.export.export(Normalized().eval(), (x,)).graph
    # Beside it the result, a quarter of its size, in pieces and as a whole, and two rows with their nine views.
    assert most_values_at_once(graph) <= 1.9 * x.numel()


def most_values_at_once(graph: torch.fx.Graph) -> int:
    """Of a program's intermediates and inputs, without its constants, if each goes after its last use."""
    nodes = list(graph.nodes)
    sizes = {node: node.meta["val"].numel() for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)}
    last = {used: place for place, node in enumerate(nodes) for used in node.all_input_nodes}
    held, most = 0, 0
    for place, node in enumerate(nodes):
        if node.name.startswith(("p_", "b_", "c_")):
            continue
        held += sizes.get(node, 0)
        most = max(most, held)
        held -= sum(sizes.get(each, 0) for each in {*node.all_input_nodes, node} if last.get(each, place) == place)
    return most


@torch.no_grad()
def test_an_image_whose_values_are_rounded_is_made_as_a_whole(monkeypatch):
    """Lock-step parity looks at it."""
    layer, x = nn.Conv2d(8, 8, 3, padding=1), image(1, 8, 4, 4)
    monkeypatch.setattr(pieces, "MOST_VALUES", 1)
    for activations, kind in (("static", Convolution), ("dynamic", DynamicConvolution)):
        network = nn.Sequential()
        network.add_module("layer", layer)
        table = activations_of(quantized(network, {"input": x}, "w8a8", activations))
        form = convolution("layer", layer, table.layers)
        assert isinstance(form, kind)
        assert not form.by_rows((1, 4, 4, 8))


@pytest.mark.parametrize("count", [1, 2, 5, 6, 25, 26, 31])
def test_parts_are_joined_in_order(count, monkeypatch):
    parts, seen = list(torch.arange(3.0 * count).reshape(count, 1, 3)), []
    whole = torch.cat

    def cat(tensors, axis):
        seen.append(len(tensors))
        return whole(tensors, axis)

    monkeypatch.setattr(torch, "cat", cat)
    assert torch.equal(joined(parts, 0), torch.arange(3.0 * count).reshape(count, 3))
    assert all(2 <= each <= pieces.AT_ONCE for each in seen)
    assert (count == 1) == (seen == [])


class Network(nn.Module):
    """Two convolutions and an attention between them."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        y = self.first(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        return self.second(attend(y, y * 0.5, y * 2.0, 2).reshape(n, h, w, c).permute(0, 3, 1, 2))


class ChannelsLast(nn.Module):
    def __init__(self, network: Network, quantized_layers: layers.Layers) -> None:
        super().__init__()
        self.first = convolution("first", network.first, quantized_layers)
        self.second = convolution("second", network.second, quantized_layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        y = self.first(x.permute(0, 2, 3, 1)).reshape(n, h * w, c)
        return self.second(attend(y, y * 0.5, y * 2.0, 2).reshape(n, h, w, c)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("recipe", "stride", "rows"), [("float", 2, 4), ("w8a8", 1, 4), ("w8a8", 1, 7), ("w8a16", 2, 4), ("w8a16", 1, 7)]
)
@torch.no_grad()
def test_one_delegate_holds_all_pieces(recipe, stride, rows, monkeypatch):
    """Seven are more than are joined in one operation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(stride).eval()
    x = image(1, 8, rows, 4)
    table = {} if recipe == "float" else quantized(network, {"x": x}, recipe).layers
    form = ChannelsLast(network, table).eval()
    whole = form(x)
    monkeypatch.setattr(pieces, "MOST_VALUES", 2 * 9 * 8)  # a row of 2 pixels: 9 taps of 8 channels for each
    assert _pieces(form, x) == [[1] * rows, [1] * (rows // stride)]
    eager = form(x)
    program = lower(form, (x,))
    (ours,) = LoadedProgram(program.data, recipe)(x)
    assert (program.delegates, program.undelegated) == (1, {})
    # At 8 bits the values lie on a grid, and float noise in the attention may move one to the next.
    step = 0.0 if not table or table["second"].output is None else table["second"].output.scale
    assert float((eager - whole).abs().max()) <= 1e-5 + step
    assert float((ours - eager).abs().max()) <= 1e-5 + step


def _pieces(form: ChannelsLast, x: torch.Tensor) -> list[list[int]]:
    """Rows of each piece that a run joins, by convolution."""
    found: list[list[int]] = []
    with pytest.MonkeyPatch.context() as patch:
        joined = layers.MatrixProduct.joined

        def spy(self: layers.MatrixProduct, parts: list[torch.Tensor]) -> torch.Tensor:
            found.append([piece.shape[1] for piece in parts])
            return joined(self, parts)

        patch.setattr(layers.MatrixProduct, "joined", spy)
        form(x)
    return found
