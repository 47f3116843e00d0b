"""The committed prompts and numbers, which the Swift tests read, are those of transformers' CLIPTokenizer."""

import make_tokenizer_cases


def test_the_committed_cases_are_what_the_command_makes():
    assert make_tokenizer_cases.PATH.read_text(encoding="utf-8") == make_tokenizer_cases.text()
