"""Writes what transformers' CLIPTokenizer makes of prompts: `python tests/ios_demo/make_tokenizer_cases.py`.

The Swift tokenizer must give the same numbers. The vocabulary is small, but has every byte, as CLIP's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

PATH = Path(__file__).with_name("tokenizer_cases.json")
LENGTH = 20
START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = [
    pair.split("+")
    for pair in (
        "t+h i+n th+e</w> a+n an+d</w> c+a ca+t</w> p+h o+t ot+o</w> ph+oto</w> in+g</w> '+s</w> n+o no+t</w> a+a "
        "aa+a</w> aa+aa Ã+¼ f+Ã¼ l+l</w> '+ll</w> !+!</w> 2+0 ð+Ł"
    ).split()
]
PROMPTS = [
    "",
    "a cat",
    "The Photo of THE cat and nothing",
    "the cat's photo isn't theirs, we'll see: I'm, you're, I've, he'd",
    "''s 'lll '' 's'",
    "2024 20 x20 ½²٣Ⅷ",
    "!!! (cat)...and--the?",
    "aaaa aaaaa aaaaaa aaa",
    "Füchsin fu\u0308chsin 🦊 FÜCHSIN",
    "猫と犬 кот ΣΑΣ İstanbul ﬁ ǅ",
    " \t\n cat\u00a0the\u2003cat\u0085the\u000bcat\u3000 ",
    "zero\u200bwidth\u200djoiner\ufeff",
    "cat<|endoftext|>cat <|startoftext|>the",
    "<|ENDOFTEXT|> <|endoftext",
    "under_score e\u0301 \u0301 a\u0327\u0301",
    "the " * 30,
    "a!b! !",
]
SPECIALS = {"clip": {}, "exclamation": {"pad_token": "!"}}


def byte_letters() -> list[str]:
    """The letters that stand for bytes, printable ones for themselves."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    letters = {byte: chr(byte) for byte in kept} | {byte: chr(256 + k) for k, byte in enumerate(rest)}
    return [letters[byte] for byte in sorted(letters)]


def cases() -> dict[str, Any]:
    letters = byte_letters()
    merged = ["".join(pair) for pair in MERGES]
    words = list(dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters), *merged, START, END]))
    vocabulary = {word: number for number, word in enumerate(words)}
    found = []
    for name, specials in SPECIALS.items():
        tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in MERGES], **specials)
        ids = tokenizer(PROMPTS, padding="max_length", max_length=LENGTH, truncation=True).input_ids
        found.append({"name": name, "specials": specials, "ids": ids})
    return {
        "length": LENGTH,
        "vocabulary": vocabulary,
        "merges": MERGES,
        "prompts": PROMPTS,
        "tokenizers": found,
    }


def text() -> str:
    return json.dumps(cases(), ensure_ascii=True, indent=None, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
