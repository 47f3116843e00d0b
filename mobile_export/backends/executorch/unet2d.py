"""ChannelsLastUNet: a diffusers UNet2DModel or UNet2DConditionModel, written so that one XNNPACK delegate holds it."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from mobile_export.backends.executorch.blocks import DOWN_BLOCKS, UP_BLOCKS, Block, MiddleBlock
from mobile_export.backends.executorch.layers import Layers, convolution, silu
from mobile_export.backends.executorch.normalization import GroupNorm
from mobile_export.backends.executorch.refusal import require, require_type
from mobile_export.backends.executorch.time_embedding import TimeEmbedding

# Settings that change what is computed, and what they must be; other settings choose modules, which are looked at.
_REQUIRED = {
    "class_embed_type": None,
    "addition_embed_type": None,  # SDXL's added conditions
    "encoder_hid_dim_type": None,
    "encoder_hid_dim": None,
    "attention_type": "default",
    "dual_cross_attention": False,
    "time_embedding_act_fn": None,
    "class_embeddings_concat": False,
}


class ChannelsLastUNet(nn.Module):
    """forward(sample (N, C, H, W), timestep (1,) or (N,), *conditioning) -> (N, C', H, W).

    conditioning, in this order: encoder_hidden_states (N, T, D) of a UNet2DConditionModel, class_labels (N,) int64
    where the network has class embeddings, timestep_cond (N, D) where its model gives it one. Sides of H and W that
    cannot be halved at each level are rounded up, as UNet2DConditionModel does.

    unet: the float network; layers: its quantized layers by full name, empty for float32.
    Raises UsageError for the first part of the network that has no channels-last form.
    """

    one: Tensor

    def __init__(self, unet: UNet2DModel | UNet2DConditionModel, layers: Layers) -> None:
        super().__init__()
        name = type(unet).__name__
        config = unet.config
        for key, wanted in _REQUIRED.items():
            require(name, key, config.get(key, wanted), wanted)
        self.takes_text = isinstance(unet, UNet2DConditionModel)
        self.centre = bool(config.center_input_sample)
        classes = unet.class_embedding if config.num_class_embeds is not None else None
        self.time = TimeEmbedding(unet.time_proj, unet.time_embedding, classes, layers)
        self.conv_in = convolution("conv_in", unet.conv_in, layers)
        self.down = nn.ModuleList(
            Block(block, f"down_blocks.{i}", layers, DOWN_BLOCKS) for i, block in enumerate(unet.down_blocks)
        )
        self.middle = None if unet.mid_block is None else MiddleBlock(unet.mid_block, "mid_block", layers)
        self.register_buffer("one", torch.ones(1))
        self.up = nn.ModuleList(
            Block(block, f"up_blocks.{i}", layers, UP_BLOCKS) for i, block in enumerate(unet.up_blocks)
        )
        self.norm_out = GroupNorm(require_type(unet.conv_norm_out, "conv_norm_out", nn.GroupNorm))
        require(name, "act_fn", type(unet.conv_act).__name__, "SiLU")
        self.conv_out = convolution("conv_out", unet.conv_out, layers)

    def forward(self, sample: Tensor, timestep: Tensor, *conditioning: Tensor) -> Tensor:
        rest = list(conditioning)
        context = rest.pop(0) if self.takes_text else None
        labels = rest.pop(0) if self.time.classes is not None else None
        time = self.time(timestep, labels, rest.pop(0) if rest else None)
        x = sample.permute(0, 2, 3, 1)
        if self.centre:
            x = 2.0 * x - 1.0
        x = self.conv_in(x)
        skips = [x]
        for block in self.down:
            skips.extend(block.down(skips[-1], time, context))
        # Without a middle the first concatenation is of the same values twice: the delegate wants two different nodes.
        x = self.middle(skips[-1], time, context) if self.middle is not None else skips[-1] * self.one
        for block in self.up:
            x = block.up(x, skips, time, context)
        return self.conv_out(silu(self.norm_out(x))).permute(0, 3, 1, 2)
