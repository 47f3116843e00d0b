"""Pictures of the page: arrays to PNG data URIs, rows of seeds and film strips.

The parts of one bundle that were drawn from the same noise stand side by side beside one reference.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mobile_export.evaluate.evaluation import VARIANTS, Evaluation
from mobile_export.metrics import MAX_DB, psnr
from mobile_export.pictures import image_grid
from mobile_export.report.wording import decibel

VARIANT_NAMES = {"reference": "reference", "quantized": "quantized", "corrected": "quantized + correction"}
PIXEL_ART = 128  # pictures up to this side are shown with hard pixel edges


@dataclass(frozen=True)
class Picture:
    """One <img>: data URI, natural size in pixels, text for those who cannot see it, and a note below it."""

    uri: str
    width: int
    height: int
    alt: str
    note: str = ""
    better: bool = False

    @property
    def pixelated(self) -> bool:
        """True where smoothing would hide the pixels that are being compared."""
        return self.height <= PIXEL_ART


@dataclass(frozen=True)
class Row:
    """One seed: its title and one picture per column, in the order of `columns`."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Column:
    """What a column of pictures shows: a variant, of which part (its index), and its name on the page."""

    part: int
    variant: str
    name: str


def columns(parts: Sequence[Evaluation]) -> tuple[Column, ...]:
    """The reference once, then the artifact without and with its correction for each part."""
    found = [Column(0, "reference", VARIANT_NAMES["reference"])]
    for index, part in enumerate(parts):
        for variant in VARIANTS[1:]:
            name = VARIANT_NAMES[variant]
            found.append(Column(index, variant, f"{part.target_title} {name}" if len(parts) > 1 else name))
    return tuple(found)


def data_uri(image: Image.Image) -> str:
    """A picture as "data:image/png;base64,…"; an opaque picture is stored without alpha."""
    buffer = io.BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def seed_rows(parts: Sequence[Evaluation], first: int, last: int) -> tuple[Row, ...]:
    """The seeds first..last-1 as rows of a picture per column, with the PSNR of each against the reference."""
    return tuple(_seed_row(parts, index) for index in range(first, min(last, len(parts[0].labels))))


def strip_rows(parts: Sequence[Evaluation]) -> tuple[Row, ...]:
    """The film strips: per seed a picture per column, each the S predicted clean images side by side."""
    shown = parts[0].strip_steps
    steps = ", ".join(str(step) for step in shown)
    rows = []
    for index in range(len(parts[0].strips["reference"])):
        title = seed_title(parts[0], index)
        pictures = []
        for column in columns(parts):
            strip = image_grid(parts[column.part].strips[column.variant][index], columns=len(shown), gap=1)
            alt = f"{title}: predicted clean image of the {column.name} model at steps {steps}"
            pictures.append(Picture(data_uri(strip), strip.width, strip.height, alt))
        rows.append(Row(title, tuple(pictures)))
    return tuple(rows)


def seed_title(evaluation: Evaluation, index: int) -> str:
    """The class name of a seed, or its number without classes."""
    return evaluation.labels[index] or f"seed {index}"


def _seed_row(parts: Sequence[Evaluation], index: int) -> Row:
    title = seed_title(parts[0], index)
    drawn = [_drawn(part.images, index) for part in parts]
    ratios = [{v: float(psnr(one[v], one["reference"])[0]) for v in VARIANTS} for one in drawn]
    pictures = []
    for column in columns(parts):
        ratio = ratios[column.part]
        image = image_grid(drawn[column.part][column.variant], columns=1)
        note = "" if column.variant == "reference" else _note(ratio[column.variant])
        alt = f"{title}, seed {index}, {column.name}" + (f", {note}" if note else "")
        better = column.variant == "corrected" and ratio["corrected"] > ratio["quantized"]
        pictures.append(Picture(data_uri(image), image.width, image.height, alt, note, better))
    return Row(title, tuple(pictures))


def _drawn(images: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """(1, C, H, W) of one seed by variant, as drawn: a sampler may leave [-1, 1] by a little."""
    return {variant: np.clip(images[variant][index : index + 1], -1, 1) for variant in VARIANTS}


def _note(ratio: float) -> str:
    return "equal" if ratio >= MAX_DB else decibel(ratio)
