"""Export a UNet that is nobody's library's: python examples/own_unet.py [folder]

A network takes part when it is called as network(sample, timestep) and returns the model output; give it a diffusers
scheduler, and it is a model (`DiffusionModel.of_module`). Without a folder the bundle goes to a temporary one.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.models.diffusion_model import DiffusionModel
from mobile_export.quantize.recipe import Recipe


class OwnUNet(nn.Module):
    """Two scales, a residual block each: sample (B, 3, 16, 16), timestep (B,) -> (B, 3, 16, 16)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Linear(width, width)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(2 * width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        frequencies = torch.exp(torch.arange(self.width // 2) * (-math.log(10000.0) / (self.width // 2)))
        angles = timestep[:, None] * frequencies
        time = functional.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)))[:, :, None, None]
        fine = functional.silu(self.first(sample))
        coarse = functional.silu(self.down(fine)) + time
        coarse = coarse + functional.silu(self.inner(coarse))
        both = torch.cat([fine, functional.interpolate(coarse, scale_factor=2.0)], 1)
        return self.last(functional.silu(self.outer(both)))


def main(folder: Path, targets: tuple[str, ...] = ("executorch", "coreml")) -> None:
    torch.manual_seed(0)  # in place of training
    model = DiffusionModel.of_module(OwnUNet(), (3, 16, 16), DDIMScheduler(), name="own-unet")
    settings = ExportSettings(Recipe.of("w8a8"), steps=5, calibration_samples=4, targets=targets)
    bundle = export(model, folder, settings)
    print(f"{model.kind} with {sum(p.numel() for p in model.unet.parameters())} weights: bundle in {bundle.path}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            main(Path(place) / "own-unet")
