"""Weights: where the networks of a model come from, one at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from correction.errors import CheckFailed, UsageError
from mobile_export.models.pipeline_folder import PipelineFolder
from mobile_export.models.text_encoder import TextEncoder, text_encoder_weights

TEXT, VAE = "text_encoder", "vae"


class Weights(Protocol):
    """Loads the networks of a model by part: "unet", "text_encoder", "vae" (the whole autoencoder)."""

    def load(self, part: str) -> nn.Module:
        """A float32 network in evaluation mode, its weights finite.

        Raises UsageError where files are missing or damaged, CheckFailed naming a weight that is not finite.
        """

    def digest(self) -> str:
        """sha256 over all weights and configurations of the model."""


@dataclass(frozen=True)
class FolderWeights:
    """Those of a pipeline folder; scheduler: class and configuration of the scheduler, a part of the digest."""

    folder: PipelineFolder
    scheduler: Mapping[str, Any]

    def load(self, part: str) -> nn.Module:
        """See Weights. The tensors are views of the files, which stay open: a part costs its size once."""
        network = empty_network(self.folder, part)
        found = _read(self.folder.source, self.folder.weight_files(_name(self.folder, part)))
        if part == TEXT:
            found = text_encoder_weights(found)
        else:
            network._fix_state_dict_keys_on_load(found)  # type: ignore[operator]  # files of old diffusers
        _check_keys(f"{self.folder.source!r}: {part}", network, found)
        network.load_state_dict({key: found[key].float() for key in network.state_dict()}, assign=True)
        return finished(self.folder.source, network)

    def digest(self) -> str:
        """See Weights; over what the files hold, so that a copied folder has the same."""
        form = self.folder.form
        parts = ["unet", *filter(None, [form.vae]), *([TEXT] if form.text else [])]
        return self.folder.digest(parts, {"scheduler": _settings(self.scheduler)})


@dataclass(frozen=True)
class ModuleWeights:
    """Those of a UNet in memory."""

    unet: nn.Module
    scheduler: Mapping[str, Any]

    def load(self, part: str) -> nn.Module:
        """The UNet itself."""
        if part != "unet":
            raise UsageError(f"a bare network has no {part}")
        return self.unet

    def digest(self) -> str:
        """See Weights. The code of the network is no part of it, only its class's name."""
        total = hashlib.sha256(f"{type(self.unet).__qualname__} {json.dumps(_settings(self.scheduler))}".encode())
        for key, tensor in sorted(self.unet.state_dict().items()):
            total.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            total.update(tensor.contiguous().numpy().data)
        return total.hexdigest()


def empty_network(folder: PipelineFolder, part: str) -> nn.Module:
    """The network of a part without its weights, which is enough to know settings and shapes.

    Raises UsageError where the configuration makes no network.
    """
    name = _name(folder, part)
    config = folder.config(name)
    build: Callable[[Any], nn.Module]
    if part == TEXT:
        build = TextEncoder
    else:
        build = getattr(diffusers, folder.index[name][1]).from_config
    try:
        with torch.device("meta"):
            return build(config)
    except UsageError as error:
        raise UsageError(f"{folder.source!r}: {error}") from error
    except Exception as error:  # whatever diffusers raises is its answer to the configuration
        raise UsageError(f"{folder.source!r}: {name}/config.json makes no network: {_first_line(error)}") from error


def finished(source: str, network: nn.Module) -> nn.Module:
    """The network in evaluation mode, without gradients. Raises CheckFailed for a weight that is not finite."""
    for key, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckFailed(f"{source!r}: weight {key} holds NaN or infinity")
    return network.eval().requires_grad_(False)


def _name(folder: PipelineFolder, part: str) -> str:
    """The folder of a part: pipelines call their autoencoder vae or vqvae."""
    return folder.form.vae or part if part == VAE else part


def _read(source: str, files: Iterable[Path]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in files:
        try:
            found |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{source!r}: {path.parent.name}/{path.name} cannot be read: {error}") from error
    return found


def _check_keys(where: str, network: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Raises UsageError unless the files hold every weight of the network, in its shape, and no other."""
    wanted = network.state_dict()
    for what, keys in (("lack", wanted.keys() - found.keys()), ("have an unknown", found.keys() - wanted.keys())):
        if keys:
            raise UsageError(f"{where}: the weight files {what} {min(keys)} ({len(keys)} such weights)")
    for key, tensor in wanted.items():
        if tensor.shape != found[key].shape:
            shapes = f"{list(found[key].shape)} in the files, {list(tensor.shape)} by its configuration"
            raise UsageError(f"{where}: weight {key} has shape {shapes}")


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    return json.loads(json.dumps(kept, sort_keys=True, default=str))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
