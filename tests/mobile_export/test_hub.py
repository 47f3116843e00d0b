"""Models by hub name: what is downloaded, and in which order. A folder stands for the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from tiny_pipelines import copy

from correction import UsageError
from mobile_export.models.diffusion_model import load_model


class Hub:
    """snapshot_download with a folder in place of the hub."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache, self.calls = folder, cache, []

    def __call__(self, name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        self.calls.append(name)
        names = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()]
        filtered = huggingface_hub.utils.filter_repo_objects(
            names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        )
        for each in filtered:
            (self.cache / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / each, self.cache / each)
        return str(self.cache)

    @property
    def files(self) -> set[str]:
        return {str(path.relative_to(self.cache)) for path in self.cache.rglob("*") if path.is_file()}


def test_a_hub_repository_is_downloaded_as_far_as_it_is_used(tmp_path, monkeypatch):
    folder = copy("sd", tmp_path)
    for extra in (
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "safety_checker/model.safetensors",
        "v1-5-pruned.safetensors",
        "README.md",
    ):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(b"not wanted")
    hub = Hub(folder, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    model = load_model("someone/sd-tiny")
    assert (model.name, model.source) == ("sd-tiny", "someone/sd-tiny") and hub.calls == ["someone/sd-tiny"] * 2
    assert hub.files == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert model.digest == load_model(str(folder)).digest


def test_an_unsupported_repository_costs_no_weights(tmp_path, monkeypatch):
    folder = copy("sd", tmp_path)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionXLPipeline"))
    hub = Hub(folder, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    with pytest.raises(UsageError, match="StableDiffusionXLPipeline"):
        load_model("someone/xl")
    assert not [name for name in hub.files if name.endswith("safetensors")]


def test_without_the_hub_the_reason_is_told(monkeypatch):
    def offline(*_: Any, **__: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = "'someone/model' is no folder here, and could not be loaded from the hub: Cannot find an appropriate"
    with pytest.raises(UsageError, match=message) as caught:
        load_model("someone/model")
    assert "more" not in str(caught.value)
