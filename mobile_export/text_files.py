"""TextFiles: what a bundle holds for its text, besides a text encoder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from correction import CheckFailed
from mobile_export.bundle import Bundle
from mobile_export.models.diffusion_model import GUIDANCE
from mobile_export.models.text import TextSide
from mobile_export.subjects import Subjects

TOKENIZER = "tokenizer"  # folder of its files
PROMPTS = "prompts.safetensors"
CONSTANTS = "constants.safetensors"
NULL = "null."  # before the names of the inputs of guidance's other branch


def write_text(folder: Path, text: TextSide | None, subjects: Subjects | None, negative: str) -> dict[str, Any] | None:
    """Write tokenizer files or, where `subjects` are given, their embeddings; the manifest's entry `text`.

    negative: the negative prompt that guidance was calibrated with. None for a model without text.
    """
    if text is None:
        return None
    found: dict[str, Any] = {
        "max_length": text.max_length,
        "width": text.width,
        "vocabulary": text.vocabulary,
        "negative_prompt": negative,
        "tokenizer": [],
        "prompts": None,
        "subjects": [],
    }
    if subjects is not None:
        save_file(as_tensors(subjects), folder / PROMPTS)
        (folder / PROMPTS).chmod(0o644)
        return found | {"prompts": PROMPTS, "subjects": list(subjects.names)}
    (folder / TOKENIZER).mkdir(exist_ok=True)
    for file in text.files:
        shutil.copyfile(file, folder / TOKENIZER / file.name)
    return found | {"tokenizer": [f"{TOKENIZER}/{file.name}" for file in text.files]}


def write_constants(folder: Path, subjects: Subjects) -> str:
    """Write what every call of the UNet is told whatever is drawn, one row each; the file's name.

    That is the guidance, of networks that take it as an input: a phone's sines of large angles are other ones.
    """
    save_file({GUIDANCE: np.ascontiguousarray(subjects.arrays[GUIDANCE][:1])}, folder / CONSTANTS)
    (folder / CONSTANTS).chmod(0o644)
    return CONSTANTS


def as_tensors(subjects: Subjects) -> dict[str, np.ndarray]:
    """The arrays by name, those of guidance's other branch as "null.<name>"."""
    null = {f"{NULL}{name}": array for name, array in subjects.null.items()}
    return {name: np.ascontiguousarray(array) for name, array in {**subjects.arrays, **null}.items()}


def bundle_prompts(bundle: Bundle) -> Subjects | None:
    """The prompts whose embeddings a bundle holds; None where it has none.

    Raises CheckFailed for a file that is not one of ours.
    """
    text = bundle.manifest["text"]
    if text is None or text["prompts"] is None:
        return None
    path = bundle.path / text["prompts"]
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckFailed(f"{path} cannot be read ({error}); export the bundle again") from error
    null: Mapping[str, np.ndarray] = {k.removeprefix(NULL): v for k, v in tensors.items() if k.startswith(NULL)}
    arrays = {name: array for name, array in tensors.items() if not name.startswith(NULL)}
    scale = float(bundle.manifest["guidance"]) if null else 1.0
    return Subjects(tuple(text["subjects"]), arrays, null, scale)
