"""DiffusionModel: a diffusers UNet with what is needed to sample from it, loaded from a folder or the hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, UNet2DModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor

from correction.errors import CheckFailed, UsageError
from mobile_export.models.zoo import zoo_folder, zoo_names

SUPPORTED_BLOCKS = ("DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D")
_LABELS_FILE = "labels.json"


@dataclass(frozen=True)
class DiffusionModel:
    """A float32 UNet2DModel in evaluation mode, its scheduler's configuration and its class names.

    name: short name for titles; source: what the user asked for; digest: sha256 over weights and
    configuration; classes: label -> name, empty for an unconditional model; null_label: the label
    of classifier-free guidance, or None.
    """

    name: str
    source: str
    unet: UNet2DModel
    scheduler_config: Mapping[str, Any]
    classes: tuple[str, ...]
    null_label: int | None
    digest: str

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        size = self.unet.config.sample_size
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        return int(self.unet.config.in_channels), int(height), int(width)

    @property
    def conditional(self) -> bool:
        return self.unet.config.num_class_embeds is not None

    def label(self, name: str) -> int:
        """The label of a class name or of a number in words. Raises UsageError naming what exists."""
        if name in self.classes:
            return self.classes.index(name)
        raise UsageError(f"unknown class {name!r}: {self.name} has {', '.join(self.classes) or 'no classes'}")

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Distinct tensors of the shapes and types that an artifact takes: sample, timestep, class_labels."""
        sample, timestep = torch.zeros(1, *self.sample_shape), torch.full((1,), 500.0)
        return (sample, timestep, torch.zeros(1, dtype=torch.int64)) if self.conditional else (sample, timestep)


class TorchDenoiser:
    """A PyTorch UNet as a denoiser over numpy arrays: (B, C, H, W) float32, timestep -> (B, C, H, W)."""

    def __init__(self, unet: torch.nn.Module) -> None:
        self.unet = unet

    def __call__(self, sample: np.ndarray, timestep: float, /, **conditioning: np.ndarray) -> np.ndarray:
        labels = conditioning.get("class_labels")
        time = torch.full((len(sample),), timestep)
        with torch.inference_mode():
            kwargs = {} if labels is None else {"class_labels": torch.from_numpy(np.asarray(labels))}
            output = self.unet(torch.from_numpy(sample), time, return_dict=False, **kwargs)[0]
        return output.numpy()


def load_model(source: str) -> DiffusionModel:
    """Load a bundled model by name, a diffusers folder by path, or a hub repository by its name.

    Raises UsageError when nothing is found, the folder is not a diffusers pipeline, or the
    architecture is not supported; CheckFailed when weights are missing or not finite.
    """
    folder = zoo_folder(source) if source in zoo_names() else Path(source)
    if not folder.exists():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
            known = ", ".join(zoo_names())
            wanted = f"a diffusers folder, a hub name (owner/name) or one of: {known}"
            raise UsageError(f"no model at {source!r}: give {wanted}")
        pipeline = _load_pipeline(source, f"{source!r} is no folder here, and could not be loaded from the hub")
        return _describe(source.split("/")[-1], source, pipeline, labels=None)
    if not (folder / "model_index.json").is_file():
        raise UsageError(f"{source!r} is not a diffusers pipeline folder: it has no model_index.json")
    pipeline = _load_pipeline(str(folder), f"{source!r} could not be loaded as a diffusers pipeline", local=True)
    return _describe(folder.resolve().name, source, pipeline, _read_labels(folder / _LABELS_FILE))


def _load_pipeline(source: str, failure: str, local: bool = False) -> DiffusionPipeline:
    try:
        with _no_progress_bar():
            return DiffusionPipeline.from_pretrained(
                source,
                dtype=torch.float32,
                local_files_only=local,
                low_cpu_mem_usage=False,
                use_safetensors=True,  # the other weight format is pickle, which runs code
            )
    except Exception as error:  # diffusers, the hub client and safetensors raise many kinds
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"{failure}: {first_line}") from error


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """A folder loads in a moment; diffusers' own bar would break ours."""
    shown = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            diffusers_logging.enable_progress_bar()


def _describe(name: str, source: str, pipeline: DiffusionPipeline, labels: Any) -> DiffusionModel:
    unet = _supported(source, getattr(pipeline, "unet", None))
    unet = unet.float().eval().requires_grad_(False)
    for key, tensor in unet.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckFailed(f"{source!r}: weight {key} holds NaN or infinity")
    classes, null = _classes(source, unet.config.num_class_embeds, labels)
    model = DiffusionModel(
        name, source, unet, dict(pipeline.scheduler.config), classes, null, _digest(unet, pipeline.scheduler)
    )
    _check_runs(model)
    return model


def _read_labels(path: Path) -> Any:
    """What labels.json holds, or None where there is no such file."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is not readable JSON ({error})") from error


def _classes(source: str, count: int | None, labels: Any) -> tuple[tuple[str, ...], int | None]:
    """Class names and null label for a network with `count` class embeddings; labels: {"classes": [...], "null": n}."""
    if labels is None:
        return tuple(str(i) for i in range(count or 0)), None
    where = f"{source!r}: {_LABELS_FILE}"
    if count is None:
        raise UsageError(f"{where} names classes, but the network has no class embeddings: remove the file")
    names = labels.get("classes") if isinstance(labels, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f'{where} must look like {{"classes": ["cat", "dog"], "null": 2}}, the names by label')
    if len(set(names)) < len(names):
        raise UsageError(f"{where} names a class twice: {', '.join(names)}")
    if len(names) > count:
        raise UsageError(f"{where} names {len(names)} classes, the network has {count} embeddings")
    null = labels.get("null")
    if null is not None and (type(null) is not int or not len(names) <= null < count):
        raise UsageError(f"{where}: null must be a label after the classes, {len(names)} to {count - 1}, got {null!r}")
    return tuple(names), null


def _supported(source: str, unet: object) -> UNet2DModel:
    """`unet` if every part of it can be exported; raises UsageError naming the first that cannot."""
    if not isinstance(unet, UNet2DModel):
        found = type(unet).__name__ if unet is not None else "none"
        raise UsageError(f"{source!r} is not supported: its unet is {found}; supported: UNet2DModel")
    config = unet.config
    for block in (*config.down_block_types, *config.up_block_types):
        if block not in SUPPORTED_BLOCKS:
            raise UsageError(f"{source!r}: block {block} is not supported; supported: {', '.join(SUPPORTED_BLOCKS)}")
    required = {
        "mid_block_type": "UNetMidBlock2D",
        "downsample_type": "conv",
        "upsample_type": "conv",
        "time_embedding_type": "positional",
        "class_embed_type": None,
        "act_fn": "silu",
    }
    for key, wanted in required.items():
        if config.get(key, wanted) != wanted:
            raise UsageError(f"{source!r}: {key} = {config[key]!r} is not supported; supported: {wanted!r}")
    if config.in_channels != config.out_channels:
        raise UsageError(f"{source!r}: {config.out_channels} output channels for {config.in_channels} input channels")
    if config.sample_size is None:
        raise UsageError(f"{source!r}: the UNet's configuration has no sample_size")
    if config.block_out_channels[0] % 2:
        first = config.block_out_channels[0]
        raise UsageError(
            f"{source!r}: {first} channels of the first block are not supported; supported: an even number"
        )
    return unet


def _check_runs(model: DiffusionModel) -> None:
    """A configuration can contradict itself, for example a sample_size that cannot be halved at each level."""
    sample, timestep, *labels = model.example_inputs()
    try:
        with torch.inference_mode():
            model.unet(sample, timestep, class_labels=labels[0] if labels else None)
    except RuntimeError as error:
        size = model.unet.config.sample_size
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"{model.source!r} does not run on its own sample_size {size}: {reason}") from error


def _digest(unet: UNet2DModel, scheduler: Any) -> str:
    total = hashlib.sha256()
    for key, tensor in sorted(unet.state_dict().items()):
        total.update(f"{key}{tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().numpy().tobytes())
    settings = {k: v for k, v in scheduler.config.items() if not k.startswith("_")}
    total.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return total.hexdigest()
