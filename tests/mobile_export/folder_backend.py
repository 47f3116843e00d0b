"""A second backend for the tests: the dequantized network in a folder of files, run by eager PyTorch."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from correction import CheckFailed, UsageError
from mobile_export.backends.artifact import Artifact
from mobile_export.backends.backend import BackendOptions, Description, Parity, timesteps
from mobile_export.models.component import Port, Signature, call_network

LIMITS = {"lockstep_output_error": 1e-6, "output_max_abs": 1e-4}


class FolderBackend:
    """See Backend. The weights have the table's values; activations stay floating point, so nothing is in lock-step."""

    name = "folder"
    title = "Folder"
    suffix = ".folder"
    divided = None
    libraries: tuple[str, ...] = ("safetensors",)
    batch = 4
    activations = ("static",)

    def __init__(self, options: BackendOptions) -> None:
        self.options = options

    def require_supported(self, recipe):
        if recipe.precision.weight_bits > 8 or recipe.precision.name == "w6a16":
            raise UsageError(f"Folder has no {recipe.precision.name}: choose another")

    def signature(self, component):
        return Signature(tuple(Port.of(n, t) for n, t in component.inputs.items()), component.result)

    def export(self, component, table, path, progress):
        progress.stage("write a folder")
        path.mkdir()
        (path / "weights").mkdir()
        unet = UNet2DModel.from_config(component.network.config)
        known = {key: value for key, value in component.network.state_dict().items() if not value.is_meta}
        unet.load_state_dict(known, strict=False)  # the others have integers in the table
        for name, layer in table.layers.items():
            module = unet.get_submodule(name)
            module.weight.data = layer.weight.dequantize().reshape(module.weight.shape)
            module.bias.data = layer.bias
        save_file({k: v.contiguous() for k, v in unet.state_dict().items()}, path / "weights" / "unet.safetensors")
        (path / "config.json").write_text(json.dumps(dict(unet.config), sort_keys=True, default=list))
        (path / "Manifest.json").write_text(json.dumps({"id": str(uuid.uuid4())}))
        return unet.eval().requires_grad_(False)

    def check_parity(self, component, table, path, exported, probes):
        artifact = self.load(path, self.signature(component))
        relative, largest = 0.0, 0.0
        for probe in probes:
            ours = call_network(exported, probe.tensors(artifact.signature.inputs)).numpy()
            theirs = artifact(**probe.inputs)
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
            timesteps=timesteps(probes),
            output_max_abs=largest,
            limits=LIMITS,
        ).require()

    def finish(self, component, path, probes):
        return path

    def load(self, path: Path, signature):
        unet = UNet2DModel.from_config(json.loads((path / "config.json").read_text())).eval().requires_grad_(False)
        try:
            unet.load_state_dict(load_file(path / "weights" / "unet.safetensors"))
        except (OSError, RuntimeError) as error:
            raise CheckFailed(f"{path} is damaged ({error}); export it again") from error
        return FolderArtifact(unet, signature, str(path))

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

    def native(self, path, signature):
        return None

    def step_time(self, path, component):
        return None


class FolderArtifact(Artifact):
    def __init__(self, unet, signature, source):
        super().__init__(signature, source)
        self.unet = unet

    def run(self, inputs, batch):
        with torch.inference_mode():
            given = {name: value.expand(batch, *value.shape[1:]) for name, value in inputs.items()}
            return call_network(self.unet, given)
