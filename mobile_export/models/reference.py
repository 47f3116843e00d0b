"""The reference: what a diffusers pipeline does around the loop, in functions that take its networks as callables.

So the same code runs with the float networks and with artifacts. A network is called with arrays by the names of its
component's inputs and gives an array; one row a call, since artifacts take one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from correction import GuidedDenoiser, SamplingPlan, UsageError, sample
from correction.loop import Denoiser
from correction.plan import FloatArray
from correction.schedulers import compile_plan, make_scheduler
from mobile_export.models.diffusion_model import GUIDANCE, LABELS, TEXT, DiffusionModel
from mobile_export.models.guidance_embedding import guidance_embedding
from mobile_export.models.image_start import ImageStart, image_start, late_scheduler
from mobile_export.models.latents import Latents
from mobile_export.models.noise_source import NoiseSource, PhiloxNoise, TorchNoise, drawing_steps
from mobile_export.models.request import Request
from mobile_export.models.text import TextSide
from mobile_export.models.torch_denoiser import TorchComponent, TorchDenoiser

Network = Callable[..., FloatArray]  # called with arrays by name, as an artifact is
Load = Callable[[str], Network]  # a component by its name


@dataclass(frozen=True)
class Conditioning:
    """given: input of the UNet -> array with N rows; null: what guidance replaces, one row each, empty without it."""

    given: dict[str, np.ndarray] = field(default_factory=dict)
    null: dict[str, np.ndarray] = field(default_factory=dict)

    def guided(self, denoiser: Denoiser, scale: float) -> Denoiser:
        """The denoiser with classifier-free guidance, where there is something to be guided away from."""
        return GuidedDenoiser(denoiser, scale, self.null) if self.null and scale != 1 else denoiser


@dataclass(frozen=True)
class Course:
    """How a request is sampled. plan: the steps; start: of a request with an image, else None; noise: of the run."""

    plan: SamplingPlan
    start: ImageStart | None
    noise: NoiseSource


def reference_images(model: DiffusionModel, request: Request) -> FloatArray:
    """The images of the float model, (N, C, H, W) float32 in [-1, 1]. Components are loaded one after the other.

    With torch noise they are those of the diffusers pipeline itself, to rounding; but LDMPipeline takes the fresh noise
    of a step from torch's global generator, not from its own. Raises UsageError for a request that the model cannot
    serve, and as its parts.
    """

    def load(name: str) -> Network:
        return TorchComponent(model.component(name))

    way = course(model, request)
    conditioning = conditions(model, request, load)
    first = first_sample(model, request, way, load)
    fresh = way.noise.steps(request.samples, model.sample_shape) if way.plan.needs_noise else None
    denoiser = conditioning.guided(TorchDenoiser(model.unet), request.guidance)
    result = sample(way.plan, denoiser, first, step_noise=fresh, conditioning=conditioning.given)
    if model.latents is None:
        return in_range(result)
    model.release()
    return decoded(load("vae_decoder"), model.latents, result)


def course(model: DiffusionModel, request: Request) -> Course:
    """The plan and the noise of a request. Raises UsageError, or NotLinearError for a scheduler without a plan."""
    if request.sampler is None:
        scheduler, eta = model.scheduler(), request.eta
    else:
        scheduler, eta = make_scheduler(request.sampler, model.scheduler_config, request.spacing)
    if request.image is not None:
        consistency = model.pipeline.startswith("LatentConsistency")
        scheduler = late_scheduler(scheduler, request.strength, whole_schedule=consistency)
        start = image_start(scheduler, request.steps, eta)
        plan = start.plan
    else:
        start, plan = None, compile_plan(scheduler, request.steps, eta)
    if request.noise == "torch":
        return Course(plan, start, TorchNoise(request.seed, drawing_steps(scheduler, request.steps, eta)))
    return Course(plan, start, PhiloxNoise(request.seed))


def conditions(model: DiffusionModel, request: Request, load: Load) -> Conditioning:
    """What the UNet is told besides sample and timestep. load("text_encoder") is called where there are prompts.

    Text models are guided where the scale is above 1, as in diffusers; class-conditional ones where it is not 1.
    Raises UsageError for a request that the model cannot serve.
    """
    for what, wanted, has in (
        ("prompts", bool(request.prompts), model.text is not None),
        ("labels", bool(request.labels), model.conditional),
    ):
        if wanted != has:
            raise UsageError(f"{model.name} {'needs' if has else 'takes no'} {what}")
    if model.text is not None:
        return _text_conditions(model, model.text, request, load)
    if not model.conditional:
        if request.guidance != 1:
            raise UsageError(
                f"{model.name} has no conditions, so no guidance: use guidance 1, got {request.guidance:g}"
            )
        return Conditioning()
    given = {LABELS: np.array(request.labels, dtype=np.int64)}
    if request.guidance == 1:
        return Conditioning(given)
    if model.null_label is None:
        raise UsageError(f"guidance {request.guidance:g} needs a null class, which {model.name} does not have")
    return Conditioning(given, {LABELS: np.array([model.null_label], dtype=np.int64)})


def _text_conditions(model: DiffusionModel, text: TextSide, request: Request, load: Load) -> Conditioning:
    guided = request.guidance > 1 and not model.guided_by_input
    if model.guided_by_input and request.negative_prompt:
        raise UsageError(f"{model.name} is told its guidance as a number: it takes no negative prompt")
    negative = [request.negative_prompt] if guided else []
    embedded = prompt_embeddings(load("text_encoder"), text, [*negative, *request.prompts])
    given = {TEXT: embedded[len(negative) :]}
    if model.guided_by_input:
        told = guidance_embedding(request.guidance, model.conditioning[GUIDANCE].shape[1])
        given[GUIDANCE] = np.repeat(told, request.samples, axis=0)
    return Conditioning(given, {TEXT: embedded[:1]} if guided else {})


def prompt_embeddings(encoder: Network, text: TextSide, prompts: Sequence[str]) -> FloatArray:
    """(N, S, D) float32; each prompt is encoded once."""
    unique = list(dict.fromkeys(prompts))
    rows = [encoder(input_ids=ids[None]) for ids in text.tokenize(unique)]
    return np.concatenate(rows)[[unique.index(prompt) for prompt in prompts]]


def first_sample(model: DiffusionModel, request: Request, way: Course, load: Load) -> FloatArray:
    """(N, C, H, W) float32, what `correction.sample` takes as its noise. load("vae_encoder") is called for an image.

    Raises UsageError for an image of another size than the model's, or a model without an encoder.
    """
    count, shape = request.samples, model.sample_shape
    if way.start is None or request.image is None:
        return way.noise.initial(count, shape)
    image = request.image
    if model.latents is None:
        raise UsageError(f"{model.name} starts from noise alone: only a model of latents starts from an image")
    if image.shape[1:] != model.image_shape:
        raise UsageError(f"{model.name} takes images of shape {model.image_shape}, got {image.shape[1:]}")
    encoder = load("vae_encoder")
    moments = np.concatenate([encoder(image=row[None]) for row in image])
    noise = way.noise.encoder(len(image), shape) if model.latents.kind == "kl" else None
    latents = model.latents.from_encoder(model.latents.drawn(moments, noise))
    return way.start.first_sample(np.repeat(latents, count // len(image), axis=0), way.noise.initial(count, shape))


def decoded(decoder: Network, latents: Latents, result: FloatArray) -> FloatArray:
    """The images of what the loop gives, (N, C, H, W) float32 in [-1, 1]."""
    return in_range(np.concatenate([decoder(latents=row[None]) for row in latents.to_decoder(result)]))


def in_range(images: FloatArray) -> FloatArray:
    """The images limited to [-1, 1], as pipelines do before they hand them over."""
    return np.clip(images, np.float32(-1), np.float32(1))
