"""TextEncoder: CLIP's text transformer, written out so that every exporter takes it.

Radford et al., "Learning transferable visual models from natural language supervision", arXiv 2103.00020, section 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from correction.errors import UsageError

ACTIVATIONS = ("quick_gelu", "gelu")
DEFAULTS: Mapping[str, Any] = MappingProxyType(  # of CLIPTextConfig, where a configuration leaves a setting out
    {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
)
MASKED = -1e4  # added to the logits of later tokens: exp gives 0 there, and float16 holds it


class TextEncoder(nn.Module):
    """Token numbers to the embeddings of a prompt: what diffusers takes of a transformers CLIPTextModel.

    Layers are named as in the weight files of CLIPTextModel, for example
    text_model.encoder.layers.0.self_attn.q_proj. Sequences have up to `max_length` tokens; their number is fixed when
    the network is exported.

    Args:
        config: the CLIPTextModel's configuration as a mapping (config.json, or `model.config.to_dict()`).

    Raises:
        UsageError: the activation is not one of ACTIVATIONS, the heads do not divide the width, or the encoder expects
            to be told which tokens are padding (use_attention_mask).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        if config.get("use_attention_mask"):
            raise UsageError("text encoders with use_attention_mask = True are not supported; supported: False")
        self.text_model = _TextTransformer({**DEFAULTS, **config})

    @classmethod
    def of(cls, model: nn.Module) -> TextEncoder:
        """The encoder of a transformers CLIPTextModel, in evaluation mode; the weights are shared."""
        with torch.device("meta"):
            encoder = cls(model.config.to_dict())  # type: ignore[union-attr, operator]  # of a transformers model
        encoder.load_state_dict(text_encoder_weights(model.state_dict()), assign=True)
        return encoder.eval().requires_grad_(False)

    @property
    def max_length(self) -> int:
        """Largest number of tokens S."""
        return self.text_model.embeddings.position_embedding.num_embeddings

    @property
    def vocabulary(self) -> int:
        """How many token numbers there are."""
        return self.text_model.embeddings.token_embedding.num_embeddings

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return self.text_model.embeddings.position_embedding.embedding_dim

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) int64 -> (B, S, D) float32, after the final norm."""
        return self.text_model(input_ids)


def text_encoder_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a CLIPTextModel by the names of TextEncoder; transformers 5 leaves the first part out, older files
    also hold the position numbers, which are no weights."""
    named = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in weights.items()}
    named.pop("text_model.embeddings.position_ids", None)
    return named


class _TextTransformer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, length = config["hidden_size"], config["max_position_embeddings"]
        self.embeddings = _Embeddings(config["vocab_size"], length, width)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(width, config["layer_norm_eps"])

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.final_layer_norm(self.encoder(self.embeddings(input_ids)))


class _Embeddings(nn.Module):
    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Embedding(length, width)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.token_embedding(input_ids) + _first(self.position_embedding.weight, input_ids.shape[1])


def _first(table: Tensor, length: int) -> Tensor:
    """The first rows. No operation where these are all: that would be exported as an alias, which Core ML refuses."""
    return table if length == len(table) else table[:length]


class _Encoder(nn.Module):
    mask: Tensor

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(config) for _ in range(config["num_hidden_layers"])])
        length = config["max_position_embeddings"]
        # [query, key]: a token sees itself and those before. On the CPU also where the weights are still to come.
        mask = torch.full((length, length), MASKED, device="cpu").triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.mask if x.shape[1] == len(self.mask) else self.mask[: x.shape[1], : x.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        return x


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.self_attn = _Attention(width, config["num_attention_heads"])
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.mlp = _FeedForward(width, config["intermediate_size"], config["hidden_act"])
        self.layer_norm2 = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"{heads} attention heads do not divide a width of {width}")
        self.heads, self.depth = heads, width // heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))
        scores = (query * self.depth**-0.5) @ key.transpose(-1, -2) + mask  # (B, heads, S, S)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2)  # (B, S, heads, depth)
        return self.out_proj(mixed.reshape(x.shape))

    def _split(self, x: Tensor) -> Tensor:
        """(B, S, heads * depth) -> (B, heads, S, depth)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.depth).transpose(1, 2)


class _FeedForward(nn.Module):
    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UsageError(f"text encoder activation {activation!r}; supported: {', '.join(ACTIVATIONS)}")
        self.activation = activation
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        # quick_gelu: x sigmoid(1.702 x), Hendrycks and Gimpel, arXiv 1606.08415, section 2
        x = x * torch.sigmoid(1.702 * x) if self.activation == "quick_gelu" else functional.gelu(x)
        return self.fc2(x)
