"""Pictures of the page: arrays to PNG data URIs, rows of seeds and film strips."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mobile_export.evaluation import VARIANTS, Evaluation
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
    """One seed: its title and one picture per variant, in the order of `VARIANTS`."""

    title: str
    pictures: tuple[Picture, ...]


def data_uri(image: Image.Image) -> str:
    """A picture as "data:image/png;base64,…"; an opaque picture is stored without alpha."""
    buffer = io.BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def seed_rows(evaluation: Evaluation, first: int, last: int) -> tuple[Row, ...]:
    """The seeds first..last-1 as rows of three pictures, with the PSNR of each against the reference."""
    return tuple(_seed_row(evaluation, index) for index in range(first, min(last, len(evaluation.labels))))


def strip_rows(evaluation: Evaluation) -> tuple[Row, ...]:
    """The film strips: per seed three pictures, each the S predicted clean images side by side."""
    steps = ", ".join(str(step) for step in evaluation.strip_steps)
    rows = []
    for index in range(len(evaluation.strips["reference"])):
        title = seed_title(evaluation, index)
        pictures = []
        for variant in VARIANTS:
            strip = image_grid(evaluation.strips[variant][index], columns=len(evaluation.strip_steps), gap=1)
            alt = f"{title}: predicted clean image of the {VARIANT_NAMES[variant]} model at steps {steps}"
            pictures.append(Picture(data_uri(strip), strip.width, strip.height, alt))
        rows.append(Row(title, tuple(pictures)))
    return tuple(rows)


def seed_title(evaluation: Evaluation, index: int) -> str:
    """The class name of a seed, or its number without classes."""
    return evaluation.labels[index] or f"seed {index}"


def _seed_row(evaluation: Evaluation, index: int) -> Row:
    title = seed_title(evaluation, index)
    one = {  # (1, C, H, W), as drawn: a sampler may leave [-1, 1] by a little
        variant: np.clip(evaluation.images[variant][index : index + 1], -1, 1) for variant in VARIANTS
    }
    ratios = {variant: float(psnr(one[variant], one["reference"])[0]) for variant in VARIANTS}
    pictures = []
    for variant in VARIANTS:
        image = image_grid(one[variant], columns=1)
        note = "" if variant == "reference" else _note(ratios[variant])
        alt = f"{title}, seed {index}, {VARIANT_NAMES[variant]}" + (f", {note}" if note else "")
        better = variant == "corrected" and ratios["corrected"] > ratios["quantized"]
        pictures.append(Picture(data_uri(image), image.width, image.height, alt, note, better))
    return Row(title, tuple(pictures))


def _note(ratio: float) -> str:
    return "equal" if ratio >= MAX_DB else decibel(ratio)
