"""What is not supported is refused by name, before any weights are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_pipelines import copy

from correction import UsageError
from mobile_export.models.diffusion_model import load_model
from mobile_export.models.pipelines import PIPELINES


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """copied(name): a private copy of a pipeline's folder."""
    return lambda name: copy(name, tmp_path)


def change(path: Path, **values: Any) -> None:
    """Change settings of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def part(name: str, kind: str) -> dict[str, Any]:
    return {name: ["diffusers", kind]}


# file -> (changed settings, what the message says)
REFUSED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "model_index.json": [
        (
            {"_class_name": "StableDiffusionInpaintPipeline"},
            "pipeline 'StableDiffusionInpaintPipeline' is not supported",
        ),
        ({"_class_name": "StableDiffusionXLPipeline"}, "pipeline 'StableDiffusionXLPipeline' is not supported"),
        ({"_class_name": ["own", "Pipeline"]}, "pipeline ['own', 'Pipeline'] is not supported"),
        (part("text_encoder", "T5EncoderModel"), "its text_encoder is T5EncoderModel; supported: CLIPTextModel"),
        (part("vae", "AutoencoderDC"), "its vae is AutoencoderDC; supported: AutoencoderKL, AutoencoderTiny, VQModel"),
        ({"tokenizer": [None, None]}, "its tokenizer is none; supported: CLIPTokenizer, CLIPTokenizerFast"),
        (part("unet", "UNet3DConditionModel"), "its unet is UNet3DConditionModel; supported: UNet2DConditionModel"),
        (part("scheduler", "OwnScheduler"), "its scheduler is OwnScheduler, which diffusers does not have"),
    ],
    "unet/config.json": [
        (
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 64,
            },
            "addition_embed_type = 'text_time' is not supported; supported: None",
        ),
        ({"down_block_types": ["KDownBlock2D", "DownBlock2D"]}, "block KDownBlock2D is not supported; supported: Down"),
        ({"in_channels": 9}, "4 output channels for 9 input channels"),
        ({"cross_attention_dim": 24}, "embeddings of 24 numbers, the text encoder gives 16"),
        ({"block_out_channels": 3}, "unet/config.json makes no network"),
        ({"sample_size": None}, "has no sample_size: give the size of the latents"),
    ],
    "vae/config.json": [
        ({"latent_channels": 8}, "the UNet has 4 channels, the autoencoder's latents 8"),
        ({"scaling_factor": 0.0}, "the scaling factor of latents must be finite and > 0, got 0.0"),
    ],
    "text_encoder/config.json": [
        ({"hidden_act": "relu"}, "text encoder activation 'relu'; supported: quick_gelu, gelu"),
        ({"use_attention_mask": True}, "use_attention_mask = True are not supported; supported: False"),
    ],
    "tokenizer/tokenizer_config.json": [
        ({"model_max_length": 13}, "model_max_length is 13, the text encoder takes 1 to 12 tokens"),
    ],
    "scheduler/scheduler_config.json": [({"trained_betas": "three"}, "PNDMScheduler refuses its configuration")],
}
CASES = [(file, *case) for file, cases in REFUSED.items() for case in cases]


@pytest.mark.parametrize(("file", "values", "message"), CASES, ids=[case[2] for case in CASES])
def test_what_is_not_supported_is_refused_by_name(file, values, message, copied):
    folder = copied("sd")
    change(folder / file, **values)
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value)


def test_a_transformer_is_refused_with_what_is_supported(tmp_path):
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    named = "'StableDiffusion3Pipeline', whose denoiser is a transformer (SD3Transformer2DModel), is not supported"
    with pytest.raises(UsageError, match=re.escape(f"{named}; supported: {', '.join(PIPELINES)}")):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "file", ["unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"]
)
def test_missing_and_damaged_configurations_are_named(file, copied):
    folder = copied("sd")
    (folder / file).write_text("{")
    with pytest.raises(UsageError, match=re.escape(file) + "' is not readable JSON"):
        load_model(str(folder))
    (folder / file).write_text("[]")
    with pytest.raises(UsageError, match=re.escape(file) + "' holds a list, not a JSON object"):
        load_model(str(folder))
    (folder / file).unlink()
    with pytest.raises(UsageError, match=re.escape(file) + "' is missing"):
        load_model(str(folder))
