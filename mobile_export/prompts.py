"""Prompts: lists of them, from a file or for calibration."""

from __future__ import annotations

from pathlib import Path

from correction import UsageError

MAX_PROMPTS = 256
MAX_BYTES = 2**20
# What a text-to-image network is calibrated on where no prompts are given: subjects and styles far apart.
CALIBRATION_PROMPTS = (
    "a photo of a mountain lake at dawn",
    "portrait of an old fisherman, studio light",
    "a red bicycle leaning against a brick wall",
    "an oil painting of a ship in a storm",
    "a bowl of ramen, close-up",
    "a city street at night in the rain, neon signs",
    "a watercolor of a fox in a birch forest",
    "isometric drawing of a small house with a garden",
)


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts in a UTF-8 text file, one a line; empty lines are skipped.

    Raises UsageError for a file that cannot be read, holds none or more than 256, or holds one twice.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise UsageError(f"prompts {path} is larger than {MAX_BYTES} bytes")
        lines = data.decode().splitlines()
    except OSError as error:
        raise UsageError(f"prompts {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"prompts {path} is not UTF-8 text ({error})") from error
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise UsageError(f"prompts {path} must hold 1 to {MAX_PROMPTS} prompts, one a line, it has {len(prompts)}")
    twice = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
    if twice:
        raise UsageError(f"prompts {path} holds {twice[0]!r} twice")
    return prompts
