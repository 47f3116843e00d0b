"""Which UNets can be exported, told from their configurations."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from correction.errors import UsageError

SUPPORTED_BLOCKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "UNet2DModel": ("DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"),
        "UNet2DConditionModel": ("DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    }
)
# Settings with the values that are supported; one that a configuration does not have has its default, which is.
_REQUIRED: Mapping[str, Mapping[str, tuple[Any, ...]]] = MappingProxyType(
    {
        "UNet2DModel": {
            "mid_block_type": ("UNetMidBlock2D",),
            "downsample_type": ("conv",),
            "upsample_type": ("conv",),
            "time_embedding_type": ("positional",),
            "class_embed_type": (None,),
            "act_fn": ("silu",),
        },
        "UNet2DConditionModel": {
            "addition_embed_type": (None,),  # SDXL's added conditions: pooled text, sizes
            "encoder_hid_dim_type": (None,),
            "encoder_hid_dim": (None,),
            "class_embed_type": (None,),
            "num_class_embeds": (None,),
            "mid_block_type": ("UNetMidBlock2DCrossAttn", None),
            "time_embedding_type": ("positional",),
            "time_embedding_act_fn": (None,),
            "timestep_post_act": (None,),
            "act_fn": ("silu",),
            "attention_type": ("default",),
            "dual_cross_attention": (False,),
            "only_cross_attention": (False,),
            "mid_block_only_cross_attention": (None, False),
            "cross_attention_norm": (None,),
            "resnet_time_scale_shift": ("default",),
            "resnet_skip_time_act": (False,),
            "conv_in_kernel": (3,),
            "conv_out_kernel": (3,),
        },
    }
)


def require_unet(source: str, kind: str, config: Mapping[str, Any]) -> None:
    """Raises UsageError, naming it and what is supported, for the first setting of a UNet that cannot be exported.

    kind: a key of SUPPORTED_BLOCKS, the class of the UNet; config: its config.json.
    """
    blocks = SUPPORTED_BLOCKS[kind]
    for block in (*config.get("down_block_types", ()), *config.get("up_block_types", ())):
        if block not in blocks:
            raise UsageError(f"{source!r}: block {block} is not supported; supported: {', '.join(blocks)}")
    for key, allowed in _REQUIRED[kind].items():
        if key in config and config[key] not in allowed:
            wanted = ", ".join(map(repr, allowed))
            raise UsageError(f"{source!r}: {key} = {config[key]!r} is not supported; supported: {wanted}")
    channels, outputs = config.get("in_channels"), config.get("out_channels")
    if channels != outputs:
        raise UsageError(f"{source!r}: {outputs} output channels for {channels} input channels")
    first = config.get("block_out_channels", (0,))[0]
    if first % 2:
        raise UsageError(
            f"{source!r}: {first} channels of the first block are not supported; supported: an even number"
        )
