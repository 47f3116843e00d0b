"""ChannelsLastUNet: a diffusers UNet2DModel written so that one XNNPACK delegate holds all of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.backends.executorch.layers import Convolution, GroupNorm, MatrixProduct, silu, upsample_nearest
from mobile_export.quantize.table import LayerQuantization

Layers = Mapping[str, LayerQuantization]
Size = tuple[int, int]


def layer(kind: type, name: str, source: nn.Module, layers: Layers) -> nn.Module:
    """`source` as a Convolution or MatrixProduct with the integers of its full name, if it has any."""
    return kind(name, source, layers.get(name))


class Residual(nn.Module):
    """ResnetBlock2D: norm, silu, conv, + time, norm, silu, conv, + shortcut."""

    def __init__(self, block: ResnetBlock2D, name: str, layers: Layers, size: Size) -> None:
        super().__init__()
        positions = size[0] * size[1]
        self.norm1 = GroupNorm(block.norm1, positions)
        self.conv1 = layer(Convolution, f"{name}.conv1", block.conv1, layers)
        self.time = layer(MatrixProduct, f"{name}.time_emb_proj", block.time_emb_proj, layers)
        self.norm2 = GroupNorm(block.norm2, positions)
        self.conv2 = layer(Convolution, f"{name}.conv2", block.conv2, layers)
        self.shortcut = None
        if block.conv_shortcut is not None:
            self.shortcut = layer(Convolution, f"{name}.conv_shortcut", block.conv_shortcut, layers)
        self.scale_shift = block.time_embedding_norm == "scale_shift"
        self.divisor = float(block.output_scale_factor)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        t = self.time(time).view(1, 1, 1, -1)
        if self.scale_shift:
            channels = h.shape[-1]
            h = self.norm2(h) * (t[..., :channels] + 1.0) + t[..., channels:]
        else:
            h = self.norm2(h + t)
        h = self.conv2(silu(h))
        h = h + (self.shortcut(x) if self.shortcut is not None else x)
        return h if self.divisor == 1 else h / self.divisor


class SelfAttention(nn.Module):
    """Attention over the H*W positions, (1, H, W, C) -> same."""

    def __init__(self, attention: Attention, name: str, layers: Layers, size: Size) -> None:
        super().__init__()
        self.norm = GroupNorm(attention.group_norm, size[0] * size[1])
        self.query = layer(MatrixProduct, f"{name}.to_q", attention.to_q, layers)
        self.key = layer(MatrixProduct, f"{name}.to_k", attention.to_k, layers)
        self.value = layer(MatrixProduct, f"{name}.to_v", attention.to_v, layers)
        self.out = layer(MatrixProduct, f"{name}.to_out.0", attention.to_out[0], layers)
        self.heads, self.scale = attention.heads, float(attention.scale)
        self.residual = bool(attention.residual_connection)
        self.divisor = float(attention.rescale_output_factor)

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, c = x.shape
        z = self.norm(x).reshape(1, h * w, c)
        query, key, value = self.query(z) * self.scale, self.key(z), self.value(z)  # (1, HW, D)
        depth = query.shape[-1] // self.heads
        query = query.view(h * w, self.heads, depth).permute(1, 0, 2)
        key = key.view(h * w, self.heads, depth).permute(1, 2, 0)
        value = value.view(h * w, self.heads, depth).permute(1, 0, 2)
        mixed = torch.bmm(torch.softmax(torch.bmm(query, key), -1), value)  # (heads, HW, depth)
        y = self.out(mixed.permute(1, 0, 2).reshape(1, h * w, -1)).view(1, h, w, c)
        y = y + x if self.residual else y
        return y if self.divisor == 1 else y / self.divisor


class Down(nn.Module):
    """Downsample2D by a stride-2 convolution."""

    def __init__(self, block: Downsample2D, name: str, layers: Layers) -> None:
        super().__init__()
        self.conv = layer(Convolution, f"{name}.conv", block.conv, layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv.padding == 0:  # diffusers pads right and below by 1; every_other skips the second
            return self.conv.padded(functional.pad(x, (0, 0, 0, 2, 0, 2)))
        return self.conv(x)


class Up(nn.Module):
    """Upsample2D: nearest neighbour, then a convolution."""

    def __init__(self, block: Upsample2D, name: str, layers: Layers) -> None:
        super().__init__()
        self.conv = layer(Convolution, f"{name}.conv", block.conv, layers)
        self.register_buffer("one", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(upsample_nearest(x, self.one))


class ChannelsLastUNet(nn.Module):
    """forward(sample (1, C, H, W), timestep (1,), class_labels (1,) int64) -> (1, C', H, W).

    unet: the float network; layers: its quantized layers by full name, empty for float32.
    The class_labels argument exists where the network has class embeddings.
    """

    def __init__(self, unet: UNet2DModel, layers: Layers) -> None:
        super().__init__()
        config = unet.config
        size = config.sample_size if isinstance(config.sample_size, (tuple, list)) else (config.sample_size,) * 2
        size = (int(size[0]), int(size[1]))
        half = unet.time_proj.num_channels // 2
        # The frequencies exactly as diffusers' get_timestep_embedding computes them.
        exponent = -torch.log(torch.tensor(10000.0)) * torch.arange(half, dtype=torch.float32)
        frequencies = torch.exp(exponent / (half - config.freq_shift)) * float(unet.time_proj.scale)
        self.register_buffer("frequencies", frequencies[None])
        self.cosine_first = bool(config.flip_sin_to_cos)
        self.time1 = layer(MatrixProduct, "time_embedding.linear_1", unet.time_embedding.linear_1, layers)
        self.time2 = layer(MatrixProduct, "time_embedding.linear_2", unet.time_embedding.linear_2, layers)
        self.classes = unet.class_embedding if config.num_class_embeds is not None else None
        self.conv_in = layer(Convolution, "conv_in", unet.conv_in, layers)

        self.down = nn.ModuleList()  # Residual, SelfAttention or Down, and after which to keep a skip
        self.keeps_skip: list[bool] = []
        for index, block in enumerate(unet.down_blocks):
            name = f"down_blocks.{index}"
            attentions = getattr(block, "attentions", None)
            for i, resnet in enumerate(block.resnets):
                self.down.append(Residual(resnet, f"{name}.resnets.{i}", layers, size))
                self.keeps_skip.append(attentions is None)
                if attentions is not None:
                    self.down.append(SelfAttention(attentions[i], f"{name}.attentions.{i}", layers, size))
                    self.keeps_skip.append(True)
            if block.downsamplers is not None:
                self.down.append(Down(block.downsamplers[0], f"{name}.downsamplers.0", layers))
                self.keeps_skip.append(True)
                size = ((size[0] + 1) // 2, (size[1] + 1) // 2)

        self.middle = nn.ModuleList([Residual(unet.mid_block.resnets[0], "mid_block.resnets.0", layers, size)])
        for i, (attention, resnet) in enumerate(
            zip(unet.mid_block.attentions, unet.mid_block.resnets[1:], strict=True)
        ):
            if attention is not None:
                self.middle.append(SelfAttention(attention, f"mid_block.attentions.{i}", layers, size))
            self.middle.append(Residual(resnet, f"mid_block.resnets.{i + 1}", layers, size))

        self.up = nn.ModuleList()
        for index, block in enumerate(unet.up_blocks):
            name = f"up_blocks.{index}"
            attentions = getattr(block, "attentions", None)
            for i, resnet in enumerate(block.resnets):
                self.up.append(Residual(resnet, f"{name}.resnets.{i}", layers, size))
                if attentions is not None:
                    self.up.append(SelfAttention(attentions[i], f"{name}.attentions.{i}", layers, size))
            if block.upsamplers is not None:
                self.up.append(Up(block.upsamplers[0], f"{name}.upsamplers.0", layers))
                size = (2 * size[0], 2 * size[1])
        self.norm_out = GroupNorm(unet.conv_norm_out, size[0] * size[1])
        self.conv_out = layer(Convolution, "conv_out", unet.conv_out, layers)
        self.centre = bool(config.center_input_sample)

    def time_embedding(self, timestep: Tensor, class_labels: Tensor | None) -> Tensor:
        """(1,) -> (1, D), after the silu that every residual block would apply first."""
        angle = timestep.view(1, 1) * self.frequencies
        sine, cosine = torch.sin(angle), torch.cos(angle)
        wave = torch.cat([cosine, sine] if self.cosine_first else [sine, cosine], -1)
        time = self.time2(silu(self.time1(wave)))
        if self.classes is not None and class_labels is not None:
            time = time + self.classes(class_labels)
        return silu(time)

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        time = self.time_embedding(timestep, class_labels)
        x = sample.permute(0, 2, 3, 1)
        if self.centre:
            x = 2 * x - 1.0
        x = self.conv_in(x)
        skips = [x]
        for module, keep in zip(self.down, self.keeps_skip, strict=True):
            x = module(x, time) if isinstance(module, Residual) else module(x)
            if keep:
                skips.append(x)
        for module in self.middle:
            x = module(x, time) if isinstance(module, Residual) else module(x)
        for module in self.up:
            if isinstance(module, Residual):
                x = module(torch.cat([x, skips.pop()], -1), time)
            else:
                x = module(x)
        return self.conv_out(silu(self.norm_out(x))).permute(0, 3, 1, 2)
