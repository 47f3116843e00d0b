"""SavedModel: what the configurations of a pipeline folder say, checked without any weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import diffusers
import torch
from torch import Tensor, nn

from correction.errors import UsageError
from mobile_export.models.component import call_network
from mobile_export.models.latents import Latents
from mobile_export.models.pipeline_folder import PipelineFolder, read_json
from mobile_export.models.pipelines import entry
from mobile_export.models.text import TextSide
from mobile_export.models.text_encoder import TextEncoder
from mobile_export.models.unet_support import require_unet
from mobile_export.models.vae_decoder import VaeDecoder
from mobile_export.models.weights import empty_network


@dataclass(frozen=True)
class SavedModel:
    """The settings of a supported pipeline. latent_size: (H, W), or None for what the configuration says.

    Raises UsageError for whatever is not supported or contradicts itself: the networks are run without weights.
    """

    folder: PipelineFolder
    latent_size: tuple[int, int] | None

    def __post_init__(self) -> None:
        source, form = self.folder.source, self.folder.form
        require_unet(source, form.unet, self.unet.config)
        for part in ("unet", *filter(None, [form.vae]), *(["text_encoder"] if form.text else [])):
            self.folder.weight_files(part)  # that they are there
        self._check_text()
        self._check_latents()
        self._check_unet_runs()

    @cached_property
    def unet(self) -> Any:
        """Without weights, as all networks here."""
        return empty_network(self.folder, "unet")

    @cached_property
    def vae(self) -> Any:
        return None if self.folder.form.vae is None else empty_network(self.folder, "vae")

    @property
    def class_count(self) -> int | None:
        """How many class embeddings there are; None without any."""
        return self.unet.config.get("num_class_embeds")

    @cached_property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the UNet denoises."""
        size: Any = self.latent_size or self.unet.config.sample_size
        if size is None:
            raise UsageError(
                f"{self.folder.source!r}: the UNet's configuration has no sample_size: give the size of the latents"
            )
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        if not all(isinstance(side, int) and side >= 1 for side in (height, width)):
            raise UsageError(f"the size of the latents must be two whole numbers of at least 1, got {size!r}")
        return int(self.unet.config.in_channels), height, width

    @cached_property
    def conditioning(self) -> dict[str, Tensor]:
        """An example of each input of the UNet besides sample and timestep."""
        found: dict[str, Tensor] = {}
        if self.text is not None:
            found["encoder_hidden_states"] = torch.zeros(1, self.text.max_length, self.text.width)
        if self.class_count is not None:
            found["class_labels"] = torch.zeros(1, dtype=torch.int64)
        if self.unet.config.get("time_cond_proj_dim") is not None:
            found["timestep_cond"] = torch.zeros(1, self.unet.config.time_cond_proj_dim)
        return found

    @cached_property
    def latents(self) -> Latents | None:
        if self.vae is None:
            return None
        try:
            return Latents.of_config(type(self.vae).__name__, self.vae.config)
        except UsageError as error:
            raise UsageError(f"{self.folder.source!r}: {error}") from error

    @cached_property
    def text(self) -> TextSide | None:
        if not self.folder.form.text:
            return None
        encoder = cast(TextEncoder, empty_network(self.folder, "text_encoder"))
        folder = self.folder.path / "tokenizer"
        length = read_json(folder / "tokenizer_config.json").get("model_max_length", encoder.max_length)
        if not isinstance(length, int) or not 1 <= length <= encoder.max_length:
            raise UsageError(
                f"{self.folder.source!r}: the tokenizer's model_max_length is {length!r}, "
                f"the text encoder takes 1 to {encoder.max_length} tokens"
            )
        return TextSide(folder, length, encoder.width, encoder.vocabulary)

    @cached_property
    def scheduler(self) -> Any:
        """The diffusers scheduler as the pipeline sets it up."""
        name = entry(self.folder.index, "scheduler") or "none"
        kind: Any = getattr(diffusers, name, None)
        if diffusers.SchedulerMixin not in getattr(kind, "__mro__", ()):
            raise UsageError(f"{self.folder.source!r}: its scheduler is {name}, which diffusers does not have")
        config = read_json(self.folder.path / "scheduler" / "scheduler_config.json")
        form = self.folder.form
        try:
            scheduler = kind.from_config(config)
            if form.scheduler is not None:
                scheduler = getattr(diffusers, form.scheduler).from_config(scheduler.config)
            if self._resets:
                scheduler = kind.from_config({**scheduler.config, **self._resets})
        except Exception as error:  # whatever diffusers raises is its answer to the configuration
            raise UsageError(f"{self.folder.source!r}: {name} refuses its configuration: {error}") from error
        return scheduler

    @property
    def _resets(self) -> dict[str, Any]:
        """Settings that the pipeline changes whatever was saved."""
        if not self.folder.form.resets_scheduler:
            return {}
        saved = read_json(self.folder.path / "scheduler" / "scheduler_config.json")
        wanted = {"clip_sample": False, "steps_offset": 1}
        return {key: value for key, value in wanted.items() if key in saved and saved[key] != value}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the pipeline changes, as sentences."""
        return tuple(f"The scheduler's {key} is {value}, as in the pipeline." for key, value in self._resets.items())

    def _check_text(self) -> None:
        if self.text is None:
            return
        width = self.unet.config.cross_attention_dim
        widths = set(width) if isinstance(width, (tuple, list)) else {width}
        if widths != {self.text.width}:
            raise UsageError(
                f"{self.folder.source!r}: the UNet takes embeddings of {width} numbers, "
                f"the text encoder gives {self.text.width}"
            )

    def _check_latents(self) -> None:
        if self.latents is None or self.vae is None:
            return
        source, shape = self.folder.source, self.sample_shape
        if self.latents.channels != shape[0]:
            raise UsageError(
                f"{source!r}: the UNet has {shape[0]} channels, the autoencoder's latents {self.latents.channels}"
            )
        if self.vae.config.get("norm_type", "group") != "group":
            found = self.vae.config.norm_type
            raise UsageError(f"{source!r}: norm_type = {found!r} is not supported; supported: 'group'")
        wanted = (1, self.latents.image_channels, *(side * self.latents.factor for side in shape[1:]))
        result = _run(f"{source!r}: the autoencoder", VaeDecoder(self.vae), {"latents": torch.zeros(1, *shape)})
        if result.shape != wanted:
            raise UsageError(
                f"{source!r}: the autoencoder makes {list(result.shape)} of its latents, not {list(wanted)}"
            )

    def _check_unet_runs(self) -> None:
        """A configuration can contradict itself, for example a sample_size that cannot be halved at each level."""
        sample, timestep = torch.zeros(1, *self.sample_shape), torch.zeros(1)
        size = self.unet.config.sample_size if self.latent_size is None else list(self.latent_size)
        which = "its own sample_size" if self.latent_size is None else "the latent size"
        inputs = {"sample": sample, "timestep": timestep, **self.conditioning}
        result = _run(f"{self.folder.source!r} does not run on {which} {size}", self.unet, inputs)
        if result.shape != sample.shape:
            raise UsageError(f"{self.folder.source!r}: the UNet makes {list(result.shape)} of {list(sample.shape)}")


def _run(failure: str, network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The result's shape, without numbers. Raises UsageError beginning with `failure`."""
    try:
        with torch.device("meta"), torch.inference_mode():
            return call_network(network, {name: value.to("meta") for name, value in inputs.items()})
    except (RuntimeError, ValueError, TypeError) as error:
        raise UsageError(f"{failure}: {next(iter(str(error).splitlines()), type(error).__name__)}") from error
