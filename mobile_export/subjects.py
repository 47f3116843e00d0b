"""Subjects: what the samples of a model can show (classes, prompts, nothing in particular), as arrays for its UNet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from correction import Denoiser, GuidedDenoiser, UsageError
from mobile_export.models.diffusion_model import GUIDANCE, LABELS, TEXT, DiffusionModel
from mobile_export.models.guidance_embedding import guidance_embedding
from mobile_export.models.text import TextSide
from mobile_export.models.torch_denoiser import TorchComponent


@dataclass(frozen=True)
class Subjects:
    """K subjects.

    names: of each, for people, "" where there is nothing to name; arrays: input of the UNet -> (K, ...); null: inputs
    with one row that replace them in the other branch of guidance, empty where there is none; scale: of guidance by two
    branches, 1 without. Raises UsageError when the numbers of rows differ, or for a scale without anything in `null`.
    """

    names: tuple[str, ...] = ("",)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    null: Mapping[str, np.ndarray] = field(default_factory=dict)
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if len(array) != len(self.names):
                raise UsageError(f"{name} has {len(array)} rows for {len(self.names)} subjects")
        if self.scale != 1 and not self.null:
            raise UsageError(
                f"guidance {self.scale:g} needs a null class, which this model does not have: use guidance 1"
            )

    @classmethod
    def of_classes(cls, classes: Sequence[str], null_label: int | None, scale: float = 1.0) -> Subjects:
        """The classes of a model, in the order of their labels; without classes, one subject without a name."""
        null = {} if null_label is None else {LABELS: np.array([null_label], dtype=np.int64)}
        if not classes:
            return cls(scale=scale)
        return cls(tuple(classes), {LABELS: np.arange(len(classes), dtype=np.int64)}, null, scale)

    @classmethod
    def of_prompts(
        cls, prompts: Sequence[str], embeddings: np.ndarray, negative: np.ndarray | None, scale: float = 1.0
    ) -> Subjects:
        """Prompts by their embeddings (K, S, D); negative: (1, S, D), that of guidance's other branch."""
        null = {} if negative is None else {TEXT: negative}
        return cls(tuple(prompts), {TEXT: embeddings}, null, scale)

    def guided(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser with this guidance; scale 1 is the denoiser itself."""
        return denoiser if self.scale == 1 else GuidedDenoiser(denoiser, self.scale, self.null)

    def with_constant(self, name: str, row: np.ndarray) -> Subjects:
        """The same with a further input that has this row (1, ...) for all of them."""
        return replace(self, arrays={**self.arrays, name: np.repeat(row, len(self.names), axis=0)})

    def turn(self, samples: Sequence[int]) -> list[int]:
        """A subject for each sample index, in turn."""
        return [k % len(self.names) for k in samples]

    def rows(self, chosen: Sequence[int]) -> dict[str, np.ndarray]:
        """The arrays of the chosen subjects, one row for each."""
        return {name: array[list(chosen)] for name, array in self.arrays.items()}

    def digest(self) -> str:
        """sha256 of names and arrays."""
        total = hashlib.sha256("\n".join((*self.names, f"{self.scale:g}")).encode())
        for kind, arrays in (("given", self.arrays), ("null", self.null)):
            for name, array in sorted(arrays.items()):
                total.update(f"{kind} {name} {array.shape} {array.dtype}".encode())
                total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()

    def index(self, name: str) -> int:
        """The subject of this name. Raises UsageError naming those that exist."""
        if name not in self.names:
            known = ", ".join(filter(None, self.names)) or "no classes"
            raise UsageError(f"unknown class {name!r}: this model has {known}")
        return self.names.index(name)


def model_subjects(model: DiffusionModel, prompts: Sequence[str], guidance: float, negative: str = "") -> Subjects:
    """What a model can show: its classes, or these prompts as its own text encoder understands them.

    guidance: 1 is none; negative: the prompt of guidance's other branch. Raises UsageError for guidance that the model
    does not have.
    """
    if model.text is None:
        return Subjects.of_classes(model.classes, model.null_label, guidance)
    encoder = TorchComponent(model.component("text_encoder"))
    guidance_size = model.conditioning[GUIDANCE].shape[1] if model.guided_by_input else None
    return text_subjects(encoder, model.text, prompts, guidance, negative, guidance_size)


def text_subjects(
    encoder: Callable[..., np.ndarray],
    text: TextSide,
    prompts: Sequence[str],
    guidance: float,
    negative: str = "",
    guidance_size: int | None = None,
) -> Subjects:
    """Prompts as a text encoder, a network or an artifact, understands them.

    guidance_size: length of the guidance that a UNet takes as an input (timestep_cond); None where guidance is two
    branches, of which the other has the negative prompt.
    """
    embeddings = encoder(input_ids=text.tokenize(prompts))
    if guidance_size is not None:
        subjects = Subjects.of_prompts(prompts, embeddings, None)
        return subjects.with_constant(GUIDANCE, guidance_embedding(guidance, guidance_size))
    other = None if guidance == 1 else encoder(input_ids=text.tokenize([negative]))
    return Subjects.of_prompts(prompts, embeddings, other, guidance)
