"""Dependencies as bits: the same nodes as in the sets of both partitioners."""

import executorch.exir.backend.canonical_partitioners.group_partitioner as group_partitioner
import pytest
import torch.fx.passes.infra.partitioner as partitioner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import Graph, GraphModule, Node

from mobile_export.backends.executorch.dependencies import Dependencies


def graph_module(operands: list[tuple[int, int]]) -> GraphModule:
    """Node k adds two of the nodes before it, by their numbers modulo k; only the last is given out."""
    graph = Graph()
    nodes: list[Node] = [graph.placeholder("x"), graph.placeholder("y")]
    for a, b in operands:
        nodes.append(graph.call_function(max, (nodes[a % len(nodes)], nodes[b % len(nodes)])))
    graph.output(nodes[-1])
    return GraphModule({}, graph)


@pytest.mark.parametrize("viewer", [partitioner._DependencyViewer, group_partitioner._DependencyViewer])
@given(operands=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=80))
@settings(max_examples=60, deadline=None)
def test_the_same_nodes_as_in_sets(viewer, operands):
    module = graph_module(operands)
    theirs, ours = viewer(module), Dependencies(module)
    for node in module.graph.nodes:
        found = list(ours.downstreams_of(node))
        assert len(found) == len(set(found))
        assert set(found) == theirs.downstreams_of(node)


def test_a_node_that_came_later_has_none():
    module = graph_module([(0, 1)])
    dependencies = Dependencies(module)
    first = next(iter(module.graph.nodes))
    with module.graph.inserting_before(first):
        late = module.graph.call_function(max, (1, 2))
    assert list(dependencies.downstreams_of(late)) == []
