"""A second backend for the tests: the dequantized network in a folder of files, run by eager PyTorch."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from correction import CheckFailed, UsageError
from mobile_export.backends.backend import BackendOptions, Description, Parity
from mobile_export.models.diffusion_model import TorchDenoiser

LIMITS = {"lockstep_output_error": 1e-6, "output_max_abs": 1e-4}


class FolderBackend:
    """See Backend. The weights have the table's values; activations stay floating point, so nothing is in lock-step."""

    name = "folder"
    title = "Folder"
    artifact = "unet.folder"
    divided = None
    libraries: tuple[str, ...] = ("safetensors",)
    batch = 4

    def __init__(self, options: BackendOptions) -> None:
        self.options = options

    def require_supported(self, recipe):
        if recipe.precision.weight_bits > 8 or recipe.precision.name == "w6a16":
            raise UsageError(f"Folder has no {recipe.precision.name}: choose another")

    def export(self, model, table, path, progress):
        progress.stage("write a folder")
        path.mkdir()
        (path / "weights").mkdir()
        unet = UNet2DModel.from_config(model.unet.config)
        unet.load_state_dict(model.unet.state_dict())
        for name, layer in table.layers.items():
            module = unet.get_submodule(name)
            module.weight.data = layer.weight.dequantize().reshape(module.weight.shape)
            module.bias.data = layer.bias
        save_file({k: v.contiguous() for k, v in unet.state_dict().items()}, path / "weights" / "unet.safetensors")
        (path / "config.json").write_text(json.dumps(dict(unet.config), sort_keys=True, default=list))
        (path / "Manifest.json").write_text(json.dumps({"id": str(uuid.uuid4())}))
        return unet.eval()

    def check_parity(self, model, table, path, exported, probes):
        denoiser, expected = self.load(path), TorchDenoiser(exported)
        relative, largest = 0.0, 0.0
        for probe in probes:
            labels = {} if probe.label is None else {"class_labels": np.array([probe.label])}
            theirs, ours = (each(probe.sample, probe.timestep, **labels) for each in (denoiser, expected))
            relative = max(relative, float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours)))
            largest = max(largest, float(np.abs(ours - theirs).max()))
        return Parity(
            weight_codes_equal=True,
            layers=len(table.layers),
            quantizations=0,
            activation_codes_compared=0,
            flip_rate=0.0,
            worst_code_step=0,
            lockstep_output_error=relative,
            timesteps=tuple(probe.timestep for probe in probes),
            output_max_abs=largest,
            limits=LIMITS,
        ).require()

    def finish(self, path, probes):
        return path

    def load(self, path: Path):
        unet = UNet2DModel.from_config(json.loads((path / "config.json").read_text())).eval().requires_grad_(False)
        try:
            unet.load_state_dict(load_file(path / "weights" / "unet.safetensors"))
        except (OSError, RuntimeError) as error:
            raise CheckFailed(f"{path} is damaged ({error}); export it again") from error
        return TorchDenoiser(unet)

    def describe(self, path: Path):
        sizes = {file.name: file.stat().st_size for file in path.rglob("*") if file.is_file()}
        return Description(
            total_bytes=sum(sizes.values()),
            planned_memory_bytes=None,
            delegates=None,
            undelegated={},
            size_parts=sizes,
            operations={"conv": 5},
            notes=("For tests alone.",),
        )

    def native(self, path):
        return None

    def step_time(self, path, model):
        return None
