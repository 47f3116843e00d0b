"""Dependencies: which nodes of a graph need which, a bit for each pair."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node


class Dependencies:
    """Stands for the viewers of dependencies in torch's and ExecuTorch's partitioners.

    Their sets of nodes take gigabytes for a graph of 15 000 nodes, these bits some tens of megabytes.
    """

    def __init__(self, graph_module: GraphModule) -> None:
        self._nodes = list(graph_module.graph.nodes)
        places = {node: place for place, node in enumerate(self._nodes)}
        self._downstream: dict[Node, int] = {}
        for node in reversed(self._nodes):
            bits = 0
            for user in node.users:
                bits |= 1 << places[user] | self._downstream[user]
            self._downstream[node] = bits

    def downstreams_of(self, node: Node) -> Iterator[Node]:
        """All that need the value of `node`, directly or not; nothing for one that the graph did not have."""
        bits = self._downstream.get(node, 0)
        while bits:
            place = bits.bit_length() - 1
            yield self._nodes[place]
            bits ^= 1 << place
