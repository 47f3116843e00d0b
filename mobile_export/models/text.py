"""TextSide: how prompts become token numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from correction.errors import UsageError

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class TextSide:
    """The tokenizer of a text encoder.

    folder: with the files of a transformers CLIPTokenizer; max_length: tokens S that a prompt is padded or cut to;
    width: D, the length of an embedding; vocabulary: how many token numbers the encoder knows.
    """

    folder: Path
    max_length: int
    width: int
    vocabulary: int

    @property
    def files(self) -> tuple[Path, ...]:
        """The tokenizer's files, as far as it has them, in a fixed order."""
        return tuple(self.folder / name for name in FILES if (self.folder / name).is_file())

    def tokenize(self, prompts: Sequence[str]) -> np.ndarray:
        """(B, S) int64: start, the words, end, padding; what does not fit is cut (see `cut`).

        Raises UsageError for a token that the encoder does not know.
        """
        found = self._tokenizer(list(prompts), padding="max_length", max_length=self.max_length, truncation=True)
        ids = np.array(found.input_ids, dtype=np.int64).reshape(len(prompts), self.max_length)
        if ids.size and ids.max() >= self.vocabulary:
            raise UsageError(
                f"{self.folder}: token {ids.max()} is beyond the {self.vocabulary} that the text encoder knows"
            )
        return ids

    def cut(self, prompt: str) -> str:
        """The end of the prompt that `tokenize` leaves out, as words; "" where all of it fits."""
        ids = self._tokenizer(prompt, truncation=False, verbose=False).input_ids
        return self._tokenizer.decode(ids[self.max_length - 1 : -1]) if len(ids) > self.max_length else ""

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer  # slow to import, and most models have no text

        try:
            return CLIPTokenizer.from_pretrained(self.folder, local_files_only=True)
        except Exception as error:  # transformers and tokenizers raise many kinds
            raise UsageError(f"{self.folder}: the tokenizer could not be loaded: {error}") from error
