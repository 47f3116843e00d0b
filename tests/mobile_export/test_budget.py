"""Layers that need more bits, within a size: what is measured, what is chosen, what is refused."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import figures, run, sentence  # noqa: F401  run is a fixture
from torch import nn

from correction import UsageError
from mobile_export.budget import budget_recipe, parse_bytes
from mobile_export.export_settings import ExportSettings
from mobile_export.part import Job
from mobile_export.quantize.recipe import LayerRecipe, Recipe
from mobile_export.quantize.sensitivity import (
    LayerSensitivity,
    estimated_bytes,
    layer_sensitivities,
    within_budget,
)
from mobile_export.quantize.table import matrix_layers, quantize_layers

W4A16 = Recipe.of("w4a16")


@pytest.fixture
def chain():
    """Two linear layers, the second ten times as loud to the output's error."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)).requires_grad_(False)
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    tables = [quantize_layers(network, {}, Recipe.of(name)) for name in ("w4a16", "w8a16")]
    return network, x, *tables


def test_an_error_is_that_of_one_layer_alone(chain):
    network, x, low, high = chain
    before = {name: p.clone() for name, p in network.named_parameters()}
    exact = network(x).double()
    found = layer_sensitivities(network, low, high, [lambda: network(x)])
    assert [each.name for each in found] == ["0", "1"]
    for each, other in zip(found, (1, 0), strict=True):
        errors = []
        for table in (low, high):
            weights = [network[0].weight, network[1].weight]
            weights[1 - other] = table.layers[each.name].weight.dequantize()
            hidden = nn.functional.linear(x, weights[0], network[0].bias)
            output = nn.functional.linear(hidden, weights[1], network[1].bias).double()
            errors.append(float((output - exact).square().sum() / exact.square().sum()))
        assert each.error == pytest.approx(errors[0], rel=1e-6)
        assert each.saved == pytest.approx(errors[0] - errors[1], rel=1e-6) and 0 < each.saved < each.error
        assert each.bytes == network[int(each.name)].weight.numel() // 2
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_weights_are_put_back_when_a_call_fails(chain):
    network, x, low, high = chain
    before, calls = network[0].weight, []

    def call():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return network(x)

    with pytest.raises(KeyboardInterrupt):
        layer_sensitivities(network, low, high, [call])
    assert network[0].weight is before


sensitivities = st.lists(
    st.tuples(st.floats(0, 1), st.integers(1, 500)).map(lambda pair: pair), min_size=1, max_size=8
).map(lambda pairs: [LayerSensitivity(str(k), e, e, b) for k, (e, b) in enumerate(pairs)])


@settings(max_examples=60, deadline=None)
@given(found=sensitivities, spare=st.integers(0, 1500))
def test_the_budget_is_kept_and_nothing_that_fits_and_helps_is_left(found, spare):
    recipe = within_budget(W4A16, found, spare, 8)
    taken = {each.name for each in found if recipe.layer(each.name).bits == 8}
    left = spare - sum(each.bytes for each in found if each.name in taken)
    assert left >= 0
    assert all(each.bytes > left for each in found if each.name not in taken and each.saved > 0)
    assert not any(each.saved == 0 for each in found if each.name in taken)


def test_a_byte_goes_where_it_saves_most():
    found = [LayerSensitivity("a", 3, 3, 100), LayerSensitivity("b", 2, 2, 10), LayerSensitivity("c", 1, 1, 100)]
    assert set(within_budget(W4A16, found, 110, 8).layers) == {"a", "b"}
    assert set(within_budget(W4A16, found, 100, 8).layers) == {"b"}
    given = Recipe(W4A16.precision, W4A16.format, {"z": LayerRecipe.parse("float")})
    assert set(within_budget(given, found, 10, 8).layers) == {"b", "z"}
    text = {"precision": "w4a8", "activations": "static", "layers": {"a": "w4a16"}}
    spent = within_budget(Recipe.from_dict(text), found, 100, 8).as_dict()  # what is not about bits stays
    assert spent == {**text, "format": "channel", "layers": {"a": "w4a16 channel", "b": "w8 channel"}}
    spent = within_budget(Recipe.from_dict(text), found, 110, 8).as_dict()
    assert spent["layers"] == {"a": "w8a16 channel", "b": "w8 channel"}
    with pytest.raises(UsageError, match="the budget is 1,234 bytes too small for w4a16"):
        within_budget(W4A16, found, -1234, 8)


@pytest.mark.parametrize("fixture", ["w4a8", "w8a8"])
def test_the_estimate_is_an_artifacts_size(fixture, request):
    """Never below, and above by no more than the graph is smaller than its share."""
    exported = request.getfixturevalue(fixture)
    actual = exported.bundle.artifact_bytes("executorch")
    layers = len(list(matrix_layers(exported.model.unet)))
    estimate = estimated_bytes(exported.model.unet, exported.table)
    assert actual <= estimate <= actual + 1500 * layers


def test_a_recipe_within_a_budget_is_written_and_smaller_budgets_spare_fewer_layers(run, model_folder, tmp_path):  # noqa: F811
    path, chosen, estimates, budget = tmp_path / "recipe.json", [], [], 10**6
    for _ in range(2):
        options = ("--steps", 4, "--range-samples", 2, "--json")
        found = figures(run("recipe", model_folder, "--budget", f"{budget}B", "-o", path, *options))
        estimates.append(found["estimated bytes"])
        assert found["estimated bytes"] <= budget
        recipe = Recipe.read(path)
        chosen.append({name for name, layer in recipe.layers.items() if layer.bits == 8})
        becomes = {row["layer"]: row["becomes"] for row in found["layers"]}
        assert all(recipe.layer(name).name == text for name, text in becomes.items())
        budget = estimates[0] - 2000
    assert chosen[1] < chosen[0] and estimates[1] < estimates[0]
    assert json.loads(path.read_text())["precision"] == "w4a8"
    small = run("recipe", model_folder, "--budget", "1kB", "-o", path, "--steps", 2, "--range-samples", 2)
    assert re.search(r"the budget is [\d,]+ bytes too small for w4a8", sentence(small, 2))


def test_the_probes_are_the_references_own_samples(model, monkeypatch):
    """Ten steps of two samples: the network is called on nothing else when its layers are judged."""
    seen = []
    monkeypatch.setattr(
        "mobile_export.budget.layer_sensitivities", lambda network, low, high, calls, _: seen.extend(calls) or []
    )
    job = Job.of(model, ExportSettings(Recipe.of("w4a8"), steps=12, range_samples=3))
    found = budget_recipe(job, 10**9)
    outputs = [call() for call in seen]
    assert len(outputs) == 10 and all(output.shape == (2, 3, 8, 8) for output in outputs)
    assert np.isfinite(np.stack([o.numpy() for o in outputs])).all()
    assert found.recipe == Recipe.of("w4a8") and found.sensitivities == []


@pytest.mark.parametrize(
    ("text", "count"), [("3.5MB", 3_500_000), ("1GiB", 2**30), ("12 kB", 12_000), ("7", 7), ("0.5KiB", 512)]
)
def test_sizes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MB", "3.5mb", "-1MB", "1e6", "3,5MB"])
def test_sizes_that_are_none(text):
    with pytest.raises(UsageError, match=r"a size looks like 3\.5MB"):
        parse_bytes(text)
