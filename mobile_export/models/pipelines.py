"""The pipelines of diffusers that can be exported, and what of each is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from correction.errors import UsageError


@dataclass(frozen=True)
class PipelineForm:
    """What a diffusers pipeline class is made of.

    unet: class of its `unet`; vae: folder of its autoencoder, None for a pipeline of pixels; text: it has a CLIP text
    encoder with its tokenizer; scheduler: class that the pipeline turns every scheduler into, or None;
    resets_scheduler: it sets clip_sample to False and steps_offset to 1 whatever was saved.
    """

    unet: str
    vae: str | None = None
    text: bool = False
    scheduler: str | None = None
    resets_scheduler: bool = False


_STABLE_DIFFUSION = PipelineForm("UNet2DConditionModel", vae="vae", text=True, resets_scheduler=True)
_CONSISTENCY = PipelineForm("UNet2DConditionModel", vae="vae", text=True)
PIPELINES: Mapping[str, PipelineForm] = MappingProxyType(
    {
        "DDPMPipeline": PipelineForm("UNet2DModel"),
        "DDIMPipeline": PipelineForm("UNet2DModel", scheduler="DDIMScheduler"),
        "LDMPipeline": PipelineForm("UNet2DModel", vae="vqvae"),
        "StableDiffusionPipeline": _STABLE_DIFFUSION,
        "StableDiffusionImg2ImgPipeline": _STABLE_DIFFUSION,
        "LatentConsistencyModelPipeline": _CONSISTENCY,
        "LatentConsistencyModelImg2ImgPipeline": _CONSISTENCY,
    }
)
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
TEXT_ENCODER, TOKENIZER = "CLIPTextModel", ("CLIPTokenizer", "CLIPTokenizerFast")
_LEFT_OUT = {
    "safety_checker": "The safety checker is left out: nothing in the bundle judges the images.",
    "image_encoder": "The image encoder is left out: there are no prompts that are images.",
}


def pipeline_form(source: str, index: Mapping[str, Any]) -> PipelineForm:
    """The form of the pipeline that model_index.json describes.

    Raises UsageError, naming what is supported, for another pipeline or for parts of another kind.
    """
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in PIPELINES:
        denoiser = entry(index, "transformer")
        inside = f", whose denoiser is a transformer ({denoiser})," if denoiser else ""
        raise UsageError(f"{source!r}: pipeline {name!r}{inside} is not supported; supported: {', '.join(PIPELINES)}")
    form = PIPELINES[name]
    wanted: dict[str, tuple[str, ...]] = {"unet": (form.unet,)}
    if form.vae is not None:
        wanted[form.vae] = AUTOENCODERS
    if form.text:
        wanted |= {"text_encoder": (TEXT_ENCODER,), "tokenizer": TOKENIZER}
    for part, allowed in wanted.items():
        found = entry(index, part)
        if found not in allowed:
            raise UsageError(
                f"{source!r} is not supported: its {part} is {found or 'none'}; supported: {', '.join(allowed)}"
            )
    return form


def left_out(index: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences about the parts of a pipeline that are not exported."""
    return tuple(sentence for part, sentence in _LEFT_OUT.items() if entry(index, part))


def entry(index: Mapping[str, Any], part: str) -> str | None:
    """Class name of a part in model_index.json; None where the pipeline has none."""
    value = index.get(part)
    return value[1] if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str) else None
