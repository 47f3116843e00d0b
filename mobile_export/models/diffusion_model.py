"""DiffusionModel: a diffusion UNet with what is needed to sample from it, loaded from a folder or the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from correction.errors import UsageError
from mobile_export.models.component import Component, call_network
from mobile_export.models.labels import read_classes
from mobile_export.models.latents import Latents
from mobile_export.models.named_unet import NamedUNet, takes_names
from mobile_export.models.pipeline_folder import find_folder
from mobile_export.models.pipelines import left_out
from mobile_export.models.saved_model import SavedModel
from mobile_export.models.text import TextSide
from mobile_export.models.torch_denoiser import TorchDenoiser
from mobile_export.models.vae_decoder import VaeDecoder
from mobile_export.models.vae_encoder import VaeEncoder
from mobile_export.models.weights import FolderWeights, ModuleWeights, Weights, finished

__all__ = ["DiffusionModel", "TorchDenoiser", "load_model"]

LABELS, TEXT, GUIDANCE = "class_labels", "encoder_hidden_states", "timestep_cond"  # inputs besides sample, timestep


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A model of which only the settings are in memory; networks are loaded when they are asked for.

    name: short name for titles; source: what the user asked for; pipeline: its diffusers class, "" for a bare network;
    kind: class of its UNet; sample_shape: (C, H, W) of what the UNet denoises; conditioning: example of each further
    input of the UNet by name, one row; scheduler_class, scheduler_config: the scheduler as its pipeline uses it;
    classes: label -> name, empty without classes; null_label: the label of classifier-free guidance, or None;
    latents: None for a model of pixels; text: None without prompts; notes: what is left out, as sentences.
    """

    name: str
    source: str
    pipeline: str
    kind: str
    sample_shape: tuple[int, int, int]
    scheduler_class: str
    scheduler_config: Mapping[str, Any]
    weights: Weights = field(repr=False)
    conditioning: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    classes: tuple[str, ...] = ()
    null_label: int | None = None
    latents: Latents | None = None
    text: TextSide | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of_module(
        cls,
        unet: nn.Module,
        sample_shape: tuple[int, int, int],
        scheduler: Any,
        *,
        name: str,
        conditioning: Mapping[str, Tensor] | None = None,
        classes: Sequence[str] = (),
        null_label: int | None = None,
    ) -> DiffusionModel:
        """A model of a network in memory, called as unet(sample (B, C, H, W), timestep (B,), **conditioning).

        It returns the model output as a tensor, as a tuple that begins with it, or as `.sample` of an object. It is
        put in evaluation mode, without gradients. Its further inputs are known by name: class_labels,
        encoder_hidden_states and timestep_cond are used as those of diffusers' UNets.

        Args:
            sample_shape: (C, H, W) of one sample.
            scheduler: a diffusers scheduler, as it was trained with.
            conditioning: an example of each further input, one row each.
            classes, null_label: see DiffusionModel; for a network with class_labels.

        Raises:
            UsageError: the weights are not float32, or the network gives something else than (1, C, H, W).
            CheckFailed: a weight is not finite.
        """
        examples = dict(conditioning or {})
        wrong = next((key for key, value in unet.state_dict().items() if value.dtype == torch.float64), None)
        wrong = wrong or next((k for k, p in unet.named_parameters() if p.dtype != torch.float32), None)
        if wrong is not None:
            raise UsageError(f"{name}: weight {wrong} is {unet.state_dict()[wrong].dtype}; supported: torch.float32")
        network = finished(name, unet)
        if not takes_names(unet, examples):
            network = NamedUNet(unet).eval()
        model = cls(
            name=name,
            source=name,
            pipeline="",
            kind=type(unet).__name__,
            sample_shape=sample_shape,
            scheduler_class=type(scheduler).__name__,
            scheduler_config=dict(scheduler.config),
            weights=ModuleWeights(network, dict(scheduler.config)),
            conditioning=examples,
            classes=tuple(classes),
            null_label=null_label,
        )
        with torch.inference_mode():
            result = call_network(network, model.inputs)
        if not isinstance(result, Tensor) or result.shape != (1, *sample_shape):
            got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise UsageError(f"{name}: the network must give {[1, *sample_shape]} for a sample of it, it gave {got}")
        return model

    @cached_property
    def unet(self) -> nn.Module:
        """The float32 UNet in evaluation mode, loaded at the first use; raises as `Weights.load`."""
        return self.weights.load("unet")

    def release(self) -> None:
        """Let go of the UNet; the next use loads it anew."""
        self.__dict__.pop("unet", None)

    @property
    def reloads(self) -> bool:
        """Whether a network that was changed or dropped comes back as it was: not those that were given in memory."""
        return isinstance(self.weights, FolderWeights)

    @cached_property
    def digest(self) -> str:
        """sha256 over the weights and configurations that are used; files are read when it is first asked for."""
        return self.weights.digest()

    @property
    def conditional(self) -> bool:
        """Whether the UNet takes class labels."""
        return LABELS in self.conditioning

    @property
    def guided_by_input(self) -> bool:
        """Whether the UNet is told the guidance (timestep_cond), as latent consistency models are."""
        return GUIDANCE in self.conditioning

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.sample_shape
        if self.latents is None:
            return channels, height, width
        return self.latents.image_channels, height * self.latents.factor, width * self.latents.factor

    def label(self, name: str) -> int:
        """The label of a class name or of a number in words. Raises UsageError naming what exists."""
        if name in self.classes:
            return self.classes.index(name)
        raise UsageError(f"unknown class {name!r}: {self.name} has {', '.join(self.classes) or 'no classes'}")

    def scheduler(self) -> Any:
        """The diffusers scheduler that the pipeline uses, made anew."""
        return getattr(diffusers, self.scheduler_class).from_config(self.scheduler_config)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Distinct tensors of the shapes and types that the UNet takes, by name, one row."""
        sample, timestep = torch.zeros(1, *self.sample_shape), torch.full((1,), 500.0)
        return {"sample": sample, "timestep": timestep, **{k: v.clone() for k, v in self.conditioning.items()}}

    def example_inputs(self) -> tuple[Tensor, ...]:
        """`inputs` in their order."""
        return tuple(self.inputs.values())

    @property
    def component_names(self) -> tuple[str, ...]:
        """What can be exported, in the order of export."""
        text = ("text_encoder",) if self.text is not None else ()
        return text + (("vae_encoder", "vae_decoder") if self.latents is not None else ()) + ("unet",)

    def component(self, name: str) -> Component:
        """One of `component_names`. All but the UNet are loaded at each call and not kept.

        Raises UsageError for another name, and as `Weights.load`.
        """
        if name not in self.component_names:
            raise UsageError(f"{self.name} has no {name!r}: it has {', '.join(self.component_names)}")
        if name == "unet":
            return Component(name, self.unet, self.inputs, "noise_pred", self.name, self.digest)
        network: nn.Module
        if name == "text_encoder" and self.text is not None:
            ids = torch.zeros(1, self.text.max_length, dtype=torch.int64)
            network, inputs, output = self.weights.load("text_encoder"), {"input_ids": ids}, TEXT
        elif name == "vae_decoder":
            latents = torch.zeros(1, *self.sample_shape)
            network, inputs, output = VaeDecoder(self.weights.load("vae")), {"latents": latents}, "image"
        else:
            image = torch.zeros(1, *self.image_shape)
            network, inputs, output = VaeEncoder(self.weights.load("vae")), {"image": image}, "moments"
        return Component(name, network.eval(), inputs, output, self.name, self.digest)


def load_model(source: str, latent_size: tuple[int, int] | None = None) -> DiffusionModel:
    """A bundled model by name, a diffusers folder by path, or a hub repository by its name; no weights are read.

    latent_size: (H, W) of what the UNet denoises, instead of what its configuration says. Raises UsageError when
    nothing is found, the folder is not a diffusers pipeline, or it is not supported (docs/models.md).
    """
    folder = find_folder(source)
    saved = SavedModel(folder, latent_size)
    classes, null = read_classes(folder.path, source, saved.class_count)
    scheduler = saved.scheduler
    return DiffusionModel(
        name=folder.name,
        source=source,
        pipeline=folder.index["_class_name"],
        kind=folder.form.unet,
        sample_shape=saved.sample_shape,
        scheduler_class=type(scheduler).__name__,
        scheduler_config=dict(scheduler.config),
        weights=FolderWeights(folder, dict(scheduler.config)),
        conditioning=saved.conditioning,
        classes=classes,
        null_label=null,
        latents=saved.latents,
        text=saved.text,
        notes=left_out(folder.index) + saved.notes,
    )
