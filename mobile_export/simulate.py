"""Simulation: the phone's loop on the real artifacts, on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from correction import Correction, Denoiser, UsageError, sample
from mobile_export.backends import get_backend
from mobile_export.bundle import Bundle
from mobile_export.bundled_model import BundledModel
from mobile_export.models.noise_source import PhiloxNoise
from mobile_export.models.reference import Conditioning, Course, conditions, course, decoded, first_sample
from mobile_export.models.request import Request
from mobile_export.progress import Progress
from mobile_export.subjects import Subjects
from mobile_export.text_files import bundle_prompts

MAX_SAMPLES = 4096
SPACING = "trailing"  # of the plan in a bundle: see make_plan


@dataclass(frozen=True)
class Simulation:
    """images: (N, C, H, W) float32 in about [-1, 1]; names: prompt or class of each, or "".

    uncorrected: why the correction was left out, or "".
    """

    images: np.ndarray
    names: tuple[str, ...]
    uncorrected: str = ""


def bundle_unet(bundle: Bundle, target: str) -> Denoiser:
    """The UNet's artifact of one part, without guidance."""
    return BundledModel(bundle, target).denoiser()


def bundle_request(bundle: Bundle, count: int = 1, class_name: str | None = None, **changes: Any) -> Request:
    """The request that a bundle was made for, `count` images of its classes or prompts in turn, or all of one class.

    changes: other fields of Request. Raises UsageError for a count below 1 or above 4096 and an unknown class.
    """
    if not 1 <= count <= MAX_SAMPLES:
        raise UsageError(f"the number of images must be 1 to {MAX_SAMPLES}, got {count}")
    manifest = bundle.manifest
    settings: dict[str, Any] = {key: manifest[key] for key in ("sampler", "steps", "guidance")}
    settings |= {"spacing": SPACING, "count": count}
    text, subjects = manifest["text"], Subjects.of_classes(manifest["model"]["classes"], None)
    if class_name is not None:
        settings["labels"] = (subjects.index(class_name),) * count
    elif manifest["model"]["classes"]:
        settings["labels"] = tuple(subjects.turn(range(count)))
    if text is not None:
        settings["negative_prompt"] = text["negative_prompt"]
        if not changes.get("prompts"):
            if not text["subjects"]:
                raise UsageError(f"{bundle.name} draws what a prompt says: give one")
            settings["prompts"] = tuple(text["subjects"][k % len(text["subjects"])] for k in range(count))
    return Request(**(settings | changes))


def draw(
    bundle: Bundle,
    request: Request,
    target: str | None = None,
    corrected: bool = True,
    progress: Progress | None = None,
) -> Simulation:
    """The images of a request, on the artifacts of a bundle, one of which is in memory at a time.

    target: whose artifacts are run, by default the first that the bundle has; corrected: use the correction where it
    was solved for this sampler, number of steps and guidance. With noise "philox", image k does not depend on how many
    there are. Raises UsageError for a request that the bundle cannot serve, NonFiniteError naming the step where a
    value is not finite.
    """
    progress = progress or Progress()
    model: Any = BundledModel(bundle, target or bundle.targets[0])
    conditioning = _conditions(bundle, model, request)
    way = course(model, request)
    first = first_sample(model, request, way, model.artifact)
    correction, reason = None, _unlike(bundle, request) if corrected else "it was not asked for"
    if not reason:
        file = bundle.correction_file(model.target)
        way, correction = replace(way, plan=file.plan), file.correction
    denoiser = conditioning.guided(model.denoiser(), request.guidance)
    size = get_backend(model.target).batch if request.noise == "philox" else request.samples
    result = _sampled(way, correction, denoiser, first, conditioning, size, progress)
    if model.latents is not None:
        del denoiser
        result = decoded(model.artifact("vae_decoder"), model.latents, result)
    names = request.prompts or tuple(model.classes[k] for k in request.labels) or ("",) * request.samples
    return Simulation(result, names, reason)


def simulate(
    bundle: Bundle,
    count: int,
    seed: int,
    class_name: str | None = None,
    corrected: bool = True,
    target: str | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, list[str]]:
    """`count` images of what a bundle was made for: ((N, C, H, W) float32, class or prompt of each or "")."""
    found = draw(bundle, bundle_request(bundle, count, class_name, seed=seed), target, corrected, progress)
    return found.images, list(found.names)


def _conditions(bundle: Bundle, model: Any, request: Request) -> Conditioning:
    """From the bundle's own embeddings where it has them, else as in `models.reference`."""
    subjects = bundle_prompts(bundle)
    if subjects is None:
        return conditions(model, request, model.artifact)
    if request.negative_prompt != bundle.manifest["text"]["negative_prompt"]:
        raise UsageError(f"{bundle.name} has no text encoder: its negative prompt cannot be changed")
    if model.guided_by_input and request.guidance != bundle.manifest["guidance"]:
        raise UsageError(
            f"{bundle.name} was made for guidance {bundle.manifest['guidance']:g}, got {request.guidance:g}"
        )
    unknown = [prompt for prompt in request.prompts if prompt not in subjects.names]
    if unknown:
        known = ", ".join(repr(name) for name in subjects.names)
        raise UsageError(f"{bundle.name} has no text encoder, and {unknown[0]!r} is none of its prompts: {known}")
    chosen = [subjects.names.index(prompt) for prompt in request.prompts]
    return Conditioning(subjects.rows(chosen), dict(subjects.null))


def _unlike(bundle: Bundle, request: Request) -> str:
    """What of the request the correction was not solved for, or ""."""
    manifest = bundle.manifest
    for name in ("sampler", "steps", "guidance"):
        if getattr(request, name) != manifest[name]:
            return f"it was solved for {name} {manifest[name]}"
    if request.spacing != SPACING:
        return f"it was solved for {SPACING} timesteps"
    return "" if request.image is None else "it was solved for runs from noise"


def _sampled(
    way: Course,
    correction: Correction | None,
    denoiser: Denoiser,
    first: np.ndarray,
    conditioning: Conditioning,
    size: int,
    progress: Progress,
) -> np.ndarray:
    """The device loop, `size` samples at a time."""
    plan, count, shape = way.plan, len(first), first.shape[1:]
    results = []
    for start in range(0, count, size):
        rows = slice(start, start + size)
        noise = (
            PhiloxNoise(way.noise.seed, way.noise.stream, start) if isinstance(way.noise, PhiloxNoise) else way.noise
        )
        fresh = noise.steps(len(first[rows]), shape) if plan.needs_noise else None
        given = {name: array[rows] for name, array in conditioning.given.items()}

        def step(i: int, _x: np.ndarray, _m: np.ndarray, _y: np.ndarray, before: int = start // size) -> None:
            progress.advance(before * plan.steps + i + 1, -(-count // size) * plan.steps)

        results.append(sample(plan, denoiser, first[rows], correction, fresh, given, step))
    return np.concatenate(results)
