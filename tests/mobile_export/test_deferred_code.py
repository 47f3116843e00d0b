"""Deferred code: written at the first use of any kind, and then what recompiling at once would have given."""

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule, symbolic_trace

from mobile_export.backends.executorch.deferred_code import WRITTEN, deferring


class Sum(nn.Module):
    def forward(self, first, second):
        return first + 2 * second


@pytest.fixture
def deferred(monkeypatch):
    """Modules whose code was written, in order."""
    recompile, written = GraphModule.recompile, []

    def recompile_and_tell(module):
        written.append(module)
        return recompile(module)

    monkeypatch.setattr(GraphModule, "recompile", deferring(recompile_and_tell))
    return written


def replace_addition(module):
    for node in module.graph.nodes:
        if "add" in str(node.target):
            node.target = torch.sub
    module.recompile()


def test_nothing_is_written_before_it_is_used(deferred):
    module = symbolic_trace(Sum())
    replace_addition(module)
    assert deferred == []
    assert module(torch.tensor(5.0), torch.tensor(1.0)) == 3
    assert deferred == [module]
    module(torch.tensor(5.0), torch.tensor(1.0))
    assert deferred == [module]


def test_a_change_after_a_call_is_seen(deferred):
    module = symbolic_trace(Sum())
    assert module(torch.tensor(5.0), torch.tensor(1.0)) == 7
    replace_addition(module)
    assert module(torch.tensor(5.0), torch.tensor(1.0)) == 3
    assert deferred == [module, module]


@pytest.mark.parametrize(
    "use",
    [
        lambda module: module.code,
        str,
        lambda module: module._lineno_map,
        lambda module: inspect.signature(module.forward),
        lambda module: inspect.signature(type(module).forward),
        lambda module: symbolic_trace(module),
    ],
    ids=["code", "str", "lines", "signature", "signature of the class", "traced again"],
)
def test_every_use_has_it_written(deferred, use):
    module = symbolic_trace(Sum())
    module(torch.tensor(5.0), torch.tensor(1.0))
    replace_addition(module)
    before = len(deferred)
    use(module)
    assert deferred[before] is module
    assert "torch.sub(first, mul)" in module.code


def test_what_is_written_is_the_same(deferred, monkeypatch):
    later = symbolic_trace(Sum())
    replace_addition(later)
    monkeypatch.undo()
    at_once = symbolic_trace(Sum())
    replace_addition(at_once)
    assert later.code == at_once.code
    assert inspect.signature(later.forward) == inspect.signature(at_once.forward)
    assert [getattr(later, name) for name in WRITTEN[2:]] == [getattr(at_once, name) for name in WRITTEN[2:]]


def test_a_copy_is_its_own(deferred):
    module = symbolic_trace(Sum())
    copied = copy.deepcopy(module)
    replace_addition(copied)
    assert module(torch.tensor(5.0), torch.tensor(1.0)) == 7
    assert copied(torch.tensor(5.0), torch.tensor(1.0)) == 3


def test_modules_inside_are_written_again_with_the_one_around_them(deferred):
    inner, graph = symbolic_trace(Sum()), Graph()
    graph.output(graph.call_module("inner", (graph.placeholder("first"), graph.placeholder("second"))))
    outer = GraphModule({"inner": inner}, graph)
    assert outer(torch.tensor(5.0), torch.tensor(1.0)) == 7
    next(node for node in inner.graph.nodes if "add" in str(node.target)).target = torch.sub
    outer.recompile()
    assert outer(torch.tensor(5.0), torch.tensor(1.0)) == 3
