"""PipelineFolder: a diffusers pipeline on disk, found by path, bundled name or hub name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from correction.errors import UsageError
from mobile_export.models.labels import LABELS_FILE
from mobile_export.models.pipelines import PipelineForm, pipeline_form
from mobile_export.models.text import FILES as TOKENIZER_FILES
from mobile_export.models.zoo import zoo_folder, zoo_names

INDEX = "model_index.json"
_CONFIGURATIONS = [INDEX, LABELS_FILE, "*/*config.json"]
_NO_WEIGHTS = ["*.fp16*", "*.non_ema*", "*.bf16*"]  # the same weights again, in another form


@dataclass(frozen=True)
class PipelineFolder:
    """A folder with model_index.json.

    path: the folder; source: what the user asked for; name: for titles.
    """

    path: Path
    source: str
    name: str

    @cached_property
    def index(self) -> dict[str, Any]:
        """model_index.json."""
        return read_json(self.path / INDEX)

    @cached_property
    def form(self) -> PipelineForm:
        """What the pipeline is made of; raises UsageError for one that is not supported."""
        return pipeline_form(self.source, self.index)

    def config(self, part: str) -> dict[str, Any]:
        """config.json of a part. Raises UsageError where it is missing or damaged."""
        return read_json(self.path / part / "config.json")

    def weight_files(self, part: str) -> tuple[Path, ...]:
        """The safetensors files of a part, in the order of their names; none of them is opened.

        Raises UsageError where there are none, or one that the list of shards names is missing.
        """
        folder = self.path / part
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"  # transformers' name, diffusers' name
        shards = folder / f"{stem}.safetensors.index.json"
        if shards.is_file():
            names = sorted(set(read_json(shards).get("weight_map", {}).values()))
        else:
            names = [f"{stem}.safetensors"]
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise UsageError(
                    f"{self.source!r} has no weights that can be read: {part}/{name} is missing "
                    "(weights in files of another kind are pickle, which runs code: save them as safetensors)"
                )
        return tuple(folder / name for name in names)

    def digest(self, parts: Iterable[str], settings: Mapping[str, Any]) -> str:
        """sha256 over `settings`, and the configuration and weight files of `parts`; files are read in pieces."""
        total = hashlib.sha256(_canonical(settings))
        for part in parts:
            total.update(part.encode() + _canonical(self.config(part)))
            for path in self.weight_files(part):
                total.update(f"{path.name} {file_digest(path)}".encode())
        return total.hexdigest()


def find_folder(source: str) -> PipelineFolder:
    """The folder of a bundled model by name, at a path, or of a hub repository (owner/name), which is downloaded.

    Of a repository, configurations come first; weights and tokenizer files only of what is supported, and only as
    safetensors. Raises UsageError when nothing is found or the repository cannot be reached.
    """
    path = zoo_folder(source) if source in zoo_names() else Path(source)
    if path.exists():
        if not (path / INDEX).is_file():
            raise UsageError(f"{source!r} is not a diffusers pipeline folder: it has no {INDEX}")
        return PipelineFolder(path, source, path.resolve().name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        wanted = f"a diffusers folder, a hub name (owner/name) or one of: {', '.join(zoo_names())}"
        raise UsageError(f"no model at {source!r}: give {wanted}")
    folder = _downloaded(source, _CONFIGURATIONS)
    if not (folder.path / INDEX).is_file():
        raise UsageError(f"the hub's {source!r} is not a diffusers pipeline: it has no {INDEX}")
    form = folder.form  # refuses before any weights come
    parts = ["unet", *filter(None, [form.vae]), *(["text_encoder"] if form.text else [])]
    wanted_files = [f"{part}/*.safetensors{end}" for part in parts for end in ("", ".index.json")]
    tokenizer = [f"tokenizer/{name}" for name in TOKENIZER_FILES] if form.text else []
    return _downloaded(source, [*_CONFIGURATIONS, *wanted_files, *tokenizer])


def _downloaded(source: str, patterns: list[str]) -> PipelineFolder:
    import huggingface_hub  # looks at the environment when imported

    try:
        path = huggingface_hub.snapshot_download(source, allow_patterns=patterns, ignore_patterns=_NO_WEIGHTS)
    except Exception as error:  # the hub client raises many kinds, those of its network library included
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"{source!r} is no folder here, and could not be loaded from the hub: {reason}") from error
    return PipelineFolder(Path(path), source, source.split("/")[-1])


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UsageError naming the file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{str(path)!r} is missing: not a complete diffusers pipeline") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{str(path)!r} holds a {type(content).__name__}, not a JSON object")
    return content


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(settings: Mapping[str, Any]) -> bytes:
    """Settings without what diffusers notes about itself (names that begin with _), in one order."""
    kept = {key: value for key, value in settings.items() if not key.startswith("_")}
    return json.dumps(kept, sort_keys=True, default=str).encode()
