"""The pages name what exists: commands, options, make targets, files, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs")
FENCE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)[^)]*\)|<(?:img|a|source)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")


def without_code(text: str) -> str:
    return INLINE.sub("", FENCE.sub("", text))


def code_lines(text: str) -> Iterator[str]:
    """Inline code, and the lines of code blocks without prompts, with continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", text)
    outside = FENCE.sub("", text)
    for block in FENCE.finditer(text):
        yield from (line.strip().removeprefix("$ ") for line in block.group().splitlines()[1:-1])
    yield from re.findall(r"^(?: {4}|\t)\s*(?:\$ )?(.+)", outside, re.MULTILINE)
    yield from INLINE.findall(outside)


def anchors(text: str) -> set[str]:
    """Anchors that a code host gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        repeated = sum(re.fullmatch(re.escape(slug) + r"(-\d+)?", anchor) is not None for anchor in found)
        found.add(f"{slug}-{repeated}" if repeated else slug)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    """Each command of the command line by its full name, as a click command."""
    import typer

    from mobile_export.cli import app

    def walk(command: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, child in command.commands.items():
            if hasattr(child, "commands"):
                yield from walk(child, f"{prefix}{name} ")
            elif not child.hidden:
                yield f"{prefix}{name}", child

    return dict(walk(typer.main.get_command(app), ""))


@pytest.mark.parametrize("name", PAGES)
def test_page_exists(root: Path, name: str) -> None:
    assert (root / name).exists()


def test_every_command_is_documented(pages: dict[Path, str], commands: dict[str, Any], root: Path) -> None:
    text = "\n".join(text for path, text in pages.items() if path.parent in (root, root / "docs"))
    assert [name for name in commands if not re.search(rf"mobile-export {name}\b", text)] == []


def test_documented_commands_and_options_exist(pages: dict[Path, str], commands: dict[str, Any], root: Path) -> None:
    wrong = []
    for path, text in pages.items():
        for line in code_lines(text):
            match = re.match(r"(?:\.venv/bin/)?mobile-export ((?:[a-z][a-z-]* ?)+)(.*)", line)
            if match is None:
                continue
            words = match.group(1).split()
            name = next((n for k in range(len(words), 0, -1) if (n := " ".join(words[:k])) in commands), None)
            if name is None:
                wrong.append(f"{path.relative_to(root)}: no such command: {line}")
                continue
            known = {"--help"}
            for parameter in commands[name].params:
                known.update([*parameter.opts, *parameter.secondary_opts])
            used = set(re.findall(r"(?<=\s)(--?[A-Za-z][\w-]*)", line.split("#")[0]))
            wrong += [f"{path.relative_to(root)}: {name} has no {option}: {line}" for option in sorted(used - known)]
    assert wrong == []


def test_relative_links_lead_to_files_and_headings(pages: dict[Path, str], root: Path) -> None:
    broken = []
    for path, text in pages.items():
        for groups in LINK.findall(without_code(text)):
            target = groups[0] or groups[1]
            if re.match(r"[a-z][a-z+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            if not file.exists():
                broken.append(f"{path.relative_to(root)}: {target}")
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
                broken.append(f"{path.relative_to(root)}: {target} (no such heading)")
    assert broken == []


def test_every_make_target_has_help_and_those_in_the_pages_exist(pages: dict[Path, str], root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    helped = set(re.findall(r"^([a-z][\w-]*):.*## \S", makefile, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)[0].split())
    assert helped == phony
    named = {
        (str(path.relative_to(root)), target)
        for path, text in pages.items()
        for line in code_lines(text)
        for target in re.findall(r"(?:^|&& |; )make ([a-z][\w-]*)", line)
    }
    assert [(page, target) for page, target in sorted(named) if target not in helped] == []
