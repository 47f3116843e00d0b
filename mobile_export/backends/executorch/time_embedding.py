"""TimeEmbedding: what the residual blocks of a UNet learn about the timestep, the class and the guidance."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from mobile_export.backends.executorch.layers import Layers, product, silu
from mobile_export.backends.executorch.refusal import require, require_type


class TimeEmbedding(nn.Module):
    """Sinusoids of the timestep (Ho et al., arXiv 2006.11239, appendix B), two linear layers, + class; after a silu.

    classes: the class embeddings, if the network has some.
    """

    frequencies: Tensor

    def __init__(self, time_proj: Any, embedding: Any, classes: nn.Embedding | None, layers: Layers) -> None:
        super().__init__()
        time_proj = require_type(time_proj, "time_proj", Timesteps)
        embedding = require_type(embedding, "time_embedding", TimestepEmbedding)
        require("time_proj", "num_channels % 2", time_proj.num_channels % 2, 0)
        require("time_embedding", "act", type(embedding.act).__name__, "SiLU")
        require("time_embedding", "post_act", embedding.post_act, None)
        half = time_proj.num_channels // 2
        # The frequencies exactly as diffusers' get_timestep_embedding computes them.
        exponent = -torch.log(torch.tensor(10000.0)) * torch.arange(half, dtype=torch.float32)
        frequencies = torch.exp(exponent / (half - time_proj.downscale_freq_shift)) * float(time_proj.scale)
        self.register_buffer("frequencies", frequencies[None])
        self.cosine_first = bool(time_proj.flip_sin_to_cos)
        self.condition = None
        if embedding.cond_proj is not None:
            self.condition = product("time_embedding.cond_proj", embedding.cond_proj, layers)
        self.linear1 = product("time_embedding.linear_1", embedding.linear_1, layers)
        self.linear2 = product("time_embedding.linear_2", embedding.linear_2, layers)
        self.classes = classes

    def forward(self, timestep: Tensor, class_labels: Tensor | None, condition: Tensor | None) -> Tensor:
        """timestep: (N,) float32 -> (N, D), after the silu that every residual block would apply first.

        class_labels: (N,) int64; condition: (N, time_cond_proj_dim), timestep_cond of consistency models.
        """
        angle = timestep.reshape(-1, 1) * self.frequencies
        sine, cosine = torch.sin(angle), torch.cos(angle)
        wave = torch.cat([cosine, sine] if self.cosine_first else [sine, cosine], -1)
        if self.condition is not None and condition is not None:
            wave = wave + self.condition(condition)
        time = self.linear2(silu(self.linear1(wave)))
        if self.classes is not None and class_labels is not None:
            time = time + self.classes(class_labels)
        return silu(time)
