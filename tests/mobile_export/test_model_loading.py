"""Loading pipelines: nothing but configurations until a network is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tiny_pipelines import copy, saved

from correction import CheckFailed, UsageError
from mobile_export.models.diffusion_model import load_model
from mobile_export.models.latents import Latents


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """copied(name): a private copy of a pipeline's folder."""
    return lambda name: copy(name, tmp_path)


def change(path: Path, **values: Any) -> None:
    """Change settings of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_every_kind_is_described_without_its_weights(copied):
    found = {}
    for name in tiny_pipelines.PIPELINES:
        folder = copied(name)
        for path in folder.rglob("*.safetensors"):
            path.write_bytes(b"no weights at all")
        model = load_model(str(folder))
        found[name] = (model.pipeline, model.kind, model.sample_shape, model.image_shape, model.component_names)
        with pytest.raises(UsageError, match=r"unet/diffusion_pytorch_model\.safetensors cannot be read"):
            _ = model.unet
    pixels, latent = ("unet",), ("vae_encoder", "vae_decoder", "unet")
    text = ("text_encoder", *latent)
    assert found == {
        "ddpm": ("DDPMPipeline", "UNet2DModel", (3, 8, 8), (3, 8, 8), pixels),
        "ddim": ("DDIMPipeline", "UNet2DModel", (3, 8, 8), (3, 8, 8), pixels),
        "ldm-vq": ("LDMPipeline", "UNet2DModel", (3, 8, 8), (3, 16, 16), latent),
        "ldm-kl": ("LDMPipeline", "UNet2DModel", (4, 8, 8), (3, 16, 16), latent),
        "sd": ("StableDiffusionPipeline", "UNet2DConditionModel", (4, 8, 8), (3, 16, 16), text),
        "sd-tiny-vae": ("StableDiffusionPipeline", "UNet2DConditionModel", (4, 8, 8), (3, 16, 16), text),
        "sd-v": ("StableDiffusionPipeline", "UNet2DConditionModel", (4, 8, 8), (3, 16, 16), text),
        "sd-image": ("StableDiffusionImg2ImgPipeline", "UNet2DConditionModel", (4, 8, 8), (3, 16, 16), text),
        "lcm": ("LatentConsistencyModelPipeline", "UNet2DConditionModel", (4, 8, 8), (3, 16, 16), text),
        "lcm-one-level": ("LatentConsistencyModelPipeline", "UNet2DConditionModel", (4, 8, 8), (3, 16, 16), text),
    }


def test_constants_of_latents():
    found = {name: load_model(str(saved(name))).latents for name in ("ddpm", "ldm-vq", "ldm-kl", "sd-tiny-vae")}
    assert found == {
        "ddpm": None,
        "ldm-vq": Latents("vq", 3, 3, 2, 0.5),
        "ldm-kl": Latents("kl", 4, 3, 2, 0.18215),
        "sd-tiny-vae": Latents("tiny", 4, 3, 2, 0.7),
    }


def test_inputs_of_the_unets():
    def shapes(name: str, **options: Any) -> dict[str, tuple[int, ...]]:
        return {key: tuple(value.shape) for key, value in load_model(str(saved(name)), **options).inputs.items()}

    plain = {"sample": (1, 3, 8, 8), "timestep": (1,)}
    text = {"sample": (1, 4, 8, 8), "timestep": (1,), "encoder_hidden_states": (1, 12, 16)}
    assert shapes("ddpm") == plain and shapes("sd") == text
    assert list(shapes("lcm").items()) == [*text.items(), ("timestep_cond", (1, 8))]
    assert shapes("sd", latent_size=(4, 12))["sample"] == (1, 4, 4, 12)
    assert load_model(str(saved("sd")), (4, 12)).image_shape == (3, 8, 24)


@pytest.mark.parametrize("size", [(0, 8), (8.0, 8), (8, -8)])
def test_latent_sizes_that_make_no_sense(size):
    message = f"must be two whole numbers of at least 1, got {size}"
    with pytest.raises(UsageError, match=re.escape(message)):
        load_model(str(saved("sd")), size)


def test_networks_are_the_saved_ones():
    theirs = StableDiffusionPipeline.from_pretrained(saved("sd"), low_cpu_mem_usage=False)
    model = load_model(str(saved("sd")))
    for part, network in (("unet", model.unet), ("vae", model.weights.load("vae"))):
        expected = getattr(theirs, part).state_dict()
        assert {key: value.dtype for key, value in network.state_dict().items()} == dict.fromkeys(
            expected, torch.float32
        )
        assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
        assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert model.unet is model.unet
    before = model.unet
    model.release()
    assert model.unet is not before


def test_only_the_unet_is_kept():
    model = load_model(str(saved("sd")))
    first, second = (model.component("vae_decoder").network for _ in range(2))
    assert first is not second and "unet" not in vars(model)
    assert model.component("unet").network is model.unet


def test_components_compute_what_the_pipeline_computes():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, kind in (("sd", "AutoencoderKL"), ("sd-tiny-vae", "AutoencoderTiny"), ("ldm-vq", "VQModel")):
        model = load_model(str(saved(name)))
        vae = getattr(diffusers, kind).from_pretrained(
            saved(name), subfolder="vqvae" if kind == "VQModel" else "vae", low_cpu_mem_usage=False
        )
        latents = torch.randn(1, *model.sample_shape, generator=torch.Generator().manual_seed(1))
        decoder, encoder = model.component("vae_decoder"), model.component("vae_encoder")
        with torch.inference_mode():
            assert torch.allclose(decoder.network(latents=latents), vae.decode(latents).sample, atol=1e-5)
            encoded = vae.encode(image)
            expected = encoded.latent_dist.parameters if kind == "AutoencoderKL" else encoded.latents
            assert torch.allclose(encoder.network(image=image), expected, atol=1e-5)
        assert (decoder.output, encoder.output) == ("image", "moments")
        assert tuple(decoder.inputs["latents"].shape) == (1, *model.sample_shape)
        assert tuple(encoder.inputs["image"].shape) == (1, *model.image_shape)


def test_the_text_encoder_is_a_component():
    model = load_model(str(saved("sd")))
    component = model.component("text_encoder")
    theirs = StableDiffusionPipeline.from_pretrained(saved("sd"), low_cpu_mem_usage=False)
    ids = model.text.tokenize(["a cat", ""])
    with torch.inference_mode():
        expected = theirs.text_encoder(torch.from_numpy(ids)).last_hidden_state
        assert torch.allclose(component.network(input_ids=torch.from_numpy(ids)), expected, atol=1e-5)
    assert component.output == "encoder_hidden_states" and component.inputs["input_ids"].dtype == torch.int64
    assert tuple(component.inputs["input_ids"].shape) == (1, 12)
    assert (component.model, component.digest) == ("sd", model.digest)


def test_an_unknown_component_is_refused():
    with pytest.raises(UsageError, match="ddpm has no 'vae_decoder': it has unet"):
        load_model(str(saved("ddpm"))).component("vae_decoder")


def test_prompts_become_tokens():
    text = load_model(str(saved("sd"))).text
    theirs = StableDiffusionPipeline.from_pretrained(saved("sd"), low_cpu_mem_usage=False).tokenizer
    prompts = ["a cat", "", "Two  DOGS on a hill"]
    expected = theirs(prompts, padding="max_length", max_length=12, truncation=True, return_tensors="np").input_ids
    ids = text.tokenize(prompts)
    assert ids.dtype == np.int64 and np.array_equal(ids, expected)
    assert [path.name for path in text.files] == ["tokenizer.json", "tokenizer_config.json"]
    assert [text.cut(prompt) for prompt in (*prompts, "a cat a cat a dog on the hill")] == [
        "",
        "",
        "hill"[1:],
        "e hill",
    ]


def test_a_tokenizer_as_older_pipelines_have_it(copied):
    folder = copied("sd")
    vocabulary = tiny_pipelines.tokenizer().get_vocab()
    expected = load_model(str(folder)).text.tokenize(["a cat on the moon"])
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    merges = "\n".join(" ".join(pair) for pair in tiny_pipelines.MERGES)
    (folder / "tokenizer" / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    text = load_model(str(folder)).text
    assert np.array_equal(text.tokenize(["a cat on the moon"]), expected)
    assert [path.name for path in text.files] == ["tokenizer_config.json", "vocab.json", "merges.txt"]


def test_tokens_beyond_the_encoder_are_refused(copied):
    folder = copied("sd")
    change(folder / "text_encoder" / "config.json", vocab_size=50)
    with pytest.raises(UsageError, match=r"token 5\d is beyond the 50 that the text encoder knows"):
        load_model(str(folder)).text.tokenize(["a cat"])


def test_the_scheduler_is_the_one_that_the_pipeline_uses(copied):
    folder = copied("sd-v")
    change(folder / "scheduler" / "scheduler_config.json", clip_sample=True, steps_offset=0)
    model = load_model(str(folder))
    theirs = StableDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False).scheduler
    assert model.scheduler_class == "DDIMScheduler"
    ours = {key: value for key, value in model.scheduler_config.items() if not key.startswith("_")}
    assert ours == {key: value for key, value in theirs.config.items() if not key.startswith("_")}
    assert ours["clip_sample"] is False and ours["steps_offset"] == 1
    assert model.notes == (
        "The scheduler's clip_sample is False, as in the pipeline.",
        "The scheduler's steps_offset is 1, as in the pipeline.",
    )


def test_a_ddim_pipeline_makes_a_ddim_scheduler_of_any(copied):
    folder = copied("ddpm")
    change(folder / "model_index.json", _class_name="DDIMPipeline")
    model = load_model(str(folder))
    assert model.scheduler_class == "DDIMScheduler" and isinstance(model.scheduler(), DDIMScheduler)


def test_what_is_left_out_is_noted(copied):
    folder = copied("sd")
    change(folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert load_model(str(folder)).notes == (
        "The safety checker is left out: nothing in the bundle judges the images.",
    )


def test_the_digest_is_that_of_all_files_that_are_used(copied):
    folder = copied("sd")
    first = load_model(str(folder)).digest
    assert load_model(str(folder), (4, 4)).digest == first and re.fullmatch("[0-9a-f]{64}", first)
    (folder / "README.md").write_text("a note")
    change(folder / "unet" / "config.json", _name_or_path="elsewhere")
    assert load_model(str(folder)).digest == first
    digests = {first}
    for part in ("unet", "vae", "text_encoder"):
        path = next((folder / part).glob("*.safetensors"))
        weights = load_file(path)
        key = min(weights)
        save_file(weights | {key: weights[key] + 1}, path)
        digests.add(load_model(str(folder)).digest)
    change(folder / "scheduler" / "scheduler_config.json", beta_end=0.013)
    digests.add(load_model(str(folder)).digest)
    assert len(digests) == 5


def test_half_precision_shards_and_old_names(copied):
    folder = copied("sd")
    expected = load_model(str(folder)).weights.load("vae").state_dict()
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for key, value in load_file(path).items():
        for new, name in old.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{name}.")
        weights[key] = value.half()
    assert any("query" in key for key in weights)
    path.unlink()
    shards: dict[str, dict[str, torch.Tensor]] = {"a.safetensors": {}, "b.safetensors": {}}
    for i, key in enumerate(sorted(weights)):
        shards["ab"[i % 2] + ".safetensors"][key] = weights[key]
    for name, content in shards.items():
        save_file(content, path.parent / name)
    index = {key: name for name, content in shards.items() for key in content}
    (path.parent / f"{path.name}.index.json").write_text(json.dumps({"weight_map": index}))
    model = load_model(str(folder))
    found = model.weights.load("vae").state_dict()
    assert all(value.dtype == torch.float32 for value in found.values())
    assert all(torch.equal(value, expected[key].half().float()) for key, value in found.items())
    (path.parent / "b.safetensors").unlink()
    with pytest.raises(UsageError, match=r"vae/b\.safetensors is missing"):
        load_model(str(folder))


def _rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda w: w.pop("conv_in.bias"), UsageError, r"unet: the weight files lack conv_in\.bias \(1 such"),
        (lambda w: w.update(more=torch.zeros(1)), UsageError, "unet: the weight files have an unknown more"),
        (
            lambda w: w.update({"conv_in.bias": torch.zeros(3)}),
            UsageError,
            r"conv_in\.bias has shape \[3\] in .* \[8\]",
        ),
        (lambda w: w["conv_in.bias"].fill_(float("inf")), CheckFailed, r"weight conv_in\.bias holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_named(edit, error, message, copied):
    folder = copied("sd")
    _rewrite(folder / "unet" / "diffusion_pytorch_model.safetensors", edit)
    model = load_model(str(folder))
    with pytest.raises(error, match=message):
        _ = model.unet
