"""HalfEmbedding: a large table of embeddings in float16 numbers.

The table of a text encoder's tokens is a third of its weights. Rows of it are looked up and not multiplied with, so it
has no activation grid and no low bits here; in float32 it would outweigh all layers that have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LARGE = 2**20  # numbers: a table of fewer stays float32


class HalfEmbedding(nn.Module):
    """(...) whole numbers -> (..., D) float32, rows of a table that is stored as float16."""

    table: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.register_buffer("table", embedding.weight.detach().to(torch.float16))

    def forward(self, index: Tensor) -> Tensor:
        return functional.embedding(index, self.table).float()


def half_embeddings(network: nn.Module) -> dict[nn.Module, nn.Module]:
    """What stands for each large embedding of `network` in every artifact, and so in the quantized model."""
    found = dict(network.named_modules())
    return {found[name]: HalfEmbedding(found[name]) for name in large_embeddings(network)}


def large_embeddings(network: nn.Module) -> list[str]:
    """Full names of the embeddings that become HalfEmbeddings."""
    return [
        name
        for name, module in network.named_modules()
        if type(module) is nn.Embedding and module.weight.numel() > LARGE and module.max_norm is None
    ]
