"""Pipelines of every kind through the whole job: exported, checked, simulated, evaluated, beside diffusers' own."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
import tiny_pipelines
from safetensors.numpy import load_file

from correction import UsageError
from mobile_export.backends.backend import BackendOptions
from mobile_export.bundle import Bundle
from mobile_export.evaluate.bundle_evaluation import evaluate
from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.metrics import psnr
from mobile_export.models.diffusion_model import load_model
from mobile_export.models.guidance_embedding import guidance_embedding
from mobile_export.models.reference import reference_images
from mobile_export.quantize.recipe import Recipe
from mobile_export.simulate import bundle_request, draw

STEPS = 4
TEXT = ("sd-image", "lcm-one-level")  # of the first, also images from text alone
NAMES = ("ddpm", "ldm-kl", "ldm-vq", *TEXT)
PROMPTS = ("a cat", "a dog")
COMPONENTS = {
    "ddpm": ("unet",),
    "ldm-kl": ("unet", "vae_decoder"),
    "ldm-vq": ("unet", "vae_decoder"),
    "sd-image": ("unet", "text_encoder", "vae_decoder", "vae_encoder"),
    "lcm-one-level": ("unet", "vae_decoder"),  # with the embeddings of two prompts
}


def settings(name, **changes):
    return ExportSettings(
        Recipe.of("w8a8"),
        **{
            "steps": STEPS,
            "guidance": 4.0 if name in TEXT else 1.0,
            "calibration_samples": 4,
            "range_samples": 2,
            "image_to_image": name == "sd-image",
            "prompts": PROMPTS if name == "lcm-one-level" else (),
            **changes,
        },
    )


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory):
    """Both targets of a tiny pipeline, made once."""

    @cache
    def made(name):
        return export(str(tiny_pipelines.saved(name)), tmp_path_factory.mktemp(name) / "b", settings(name))

    return made


def request_of(name, bundle, **changes):
    return bundle_request(bundle, 2, **({"prompts": PROMPTS} if name in TEXT else {}), **changes)


@pytest.mark.parametrize("name", NAMES)
def test_every_component_is_there_and_computes_what_the_quantized_network_computes(name, bundle_of):
    bundle = Bundle.open(bundle_of(name).path)
    assert bundle.targets == ("executorch", "coreml")
    for target in bundle.targets:
        assert bundle.components(target) == COMPONENTS[name]
        for component in COMPONENTS[name]:
            entry = bundle.component(target, component)
            parity = entry["conversion_parity"]
            assert entry["precision"] == ("w8a8" if component == "unet" else "w8a16")
            assert parity["weight_codes_equal"] and parity["layers"] > 0 and parity["worst_code_step"] <= 1
            errors = [parity["lockstep_output_error"], parity["declared_error"] or 0.0]
            assert -20 * math.log10(max(errors)) >= 35  # decibels
            assert (parity["quantizations"] > 0) is (component == "unet")
            sizes = entry["description"]["size_parts"]
            assert sum(sizes.values()) == bundle.artifact_bytes(target, component)


@pytest.mark.parametrize("target", ["executorch", "coreml"])
@pytest.mark.parametrize("name", NAMES)
def test_the_artifacts_draw_nearly_diffusers_own_image_of_a_seed(name, target, bundle_of):
    """The reference equals the pipeline's own call to 1e-4: test_reference.py."""
    bundle = bundle_of(name)
    request = request_of(name, bundle, seed=5, noise="torch")
    found = draw(bundle, request, target)
    exact = reference_images(load_model(str(tiny_pipelines.saved(name))), request)
    assert found.images.shape == exact.shape and found.uncorrected == ""
    assert found.names == (PROMPTS if name in TEXT else ("", ""))
    assert psnr(np.clip(found.images, -1, 1), exact).min() > 14
    assert not np.array_equal(found.images[0], found.images[1])


def test_a_consistency_model_is_drawn_by_its_own_sampler(bundle_of):
    assert {name: bundle_of(name).manifest["sampler"] for name in ("ddpm", "lcm-one-level")} == {
        "ddpm": "ddim",
        "lcm-one-level": "lcm",
    }
    default = ExportSettings(Recipe.of("w8a8"))
    found = [default.sampling(each) for each in ("LCMScheduler", "TCDScheduler", "PNDMScheduler", "")]
    assert found == [("lcm", 4), ("tcd", 4), ("ddim", 50), ("ddim", 50)]
    assert ExportSettings(Recipe.of("w8a8"), "euler", 7).sampling("LCMScheduler") == ("euler", 7)
    assert ExportSettings(Recipe.of("w8a8"), "lcm").sampling("") == ("lcm", 4)


@pytest.mark.parametrize("name", ["ldm-kl", "sd-image", "lcm-one-level"])
def test_evaluation_compares_decoded_images(name, bundle_of):
    bundle = bundle_of(name)
    found = evaluate(bundle, 2, benchmark=False)
    image = bundle.manifest["image"]
    assert found.images["corrected"].shape == (2, image["channels"], image["height"], image["width"])
    assert found.sampler_parity <= 1e-5
    assert found.strips["reference"].shape[2:] == found.images["reference"].shape[1:]


def test_image_to_image_starts_at_the_image(bundle_of):
    bundle = bundle_of("sd-image")
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)
    request = request_of("sd-image", bundle, image=image, strength=0.5, steps=8, noise="torch")
    exact = reference_images(load_model(str(tiny_pipelines.saved("sd-image"))), request)
    for target in bundle.targets:
        found = draw(bundle, request, target)
        assert found.uncorrected and psnr(found.images, exact).min() > 14
    with pytest.raises(UsageError, match=r"takes images of shape \(3, 16, 16\), got \(3, 8, 8\)"):
        draw(bundle, dataclasses.replace(request, image=image[:, :, :8, :8]))


def test_a_prompt_decides_and_sample_k_does_not_depend_on_how_many_there_are(bundle_of):
    bundle = bundle_of("sd-image")
    one = draw(bundle, bundle_request(bundle, prompts=("a cat",), seed=3)).images
    two = draw(bundle, bundle_request(bundle, prompts=("a cat", "a dog"), seed=3)).images
    assert np.array_equal(one[0], two[0])
    assert not np.array_equal(one, draw(bundle, bundle_request(bundle, prompts=("a dog",), seed=3)).images)
    negative = bundle_request(bundle, prompts=("a cat",), seed=3, negative_prompt="a dog")
    assert not np.array_equal(one, draw(bundle, negative).images)


def test_prompts_in_the_bundle_stand_for_a_text_encoder(bundle_of):
    bundle = bundle_of("lcm-one-level")
    text = bundle.manifest["text"]
    assert text["subjects"] == list(PROMPTS) and text["tokenizer"] == [] and (bundle.path / text["prompts"]).is_file()
    (constant,) = load_file(bundle.path / bundle.manifest["constants"]).values()
    assert np.array_equal(constant, guidance_embedding(4.0, 8))
    found = draw(bundle, bundle_request(bundle, 3, seed=1))
    assert found.names == ("a cat", "a dog", "a cat") and found.uncorrected == ""
    with pytest.raises(UsageError, match="has no text encoder, and 'a fox' is none of its prompts: 'a cat', 'a dog'"):
        draw(bundle, bundle_request(bundle, prompts=("a fox",)))
    with pytest.raises(UsageError, match="has no text encoder: its negative prompt cannot be changed"):
        draw(bundle, bundle_request(bundle, 2, negative_prompt="cat"))
    with pytest.raises(UsageError, match="was made for guidance 4, got 2"):
        draw(bundle, bundle_request(bundle, 2, guidance=2.0))


def test_another_latent_size_is_an_option(tmp_path):
    chosen = settings("ldm-kl", latent_size=(8, 16), targets=("coreml",))
    bundle = export(str(tiny_pipelines.saved("ldm-kl")), tmp_path / "b", chosen)
    assert bundle.manifest["sample"] == {"channels": 4, "height": 8, "width": 16}
    assert draw(bundle, bundle_request(bundle, 1)).images.shape == (1, 3, 16, 32)


def test_the_layout_of_the_neural_engine_is_for_what_has_one(tmp_path):
    chosen = settings("sd-image", targets=("coreml",), options=BackendOptions(compute="ane"))
    bundle = export(str(tiny_pipelines.saved("sd-image")), tmp_path / "b", chosen)
    notes = {name: bundle.component("coreml", name)["description"]["notes"] for name in bundle.components("coreml")}
    found = {name: "Laid out for the Neural Engine." in each for name, each in notes.items()}
    assert found == {"unet": True, "vae_decoder": True, "text_encoder": False, "vae_encoder": False}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ddpm", {"prompts": ("x",)}, "prompts need a model with a text encoder"),
        ("ddpm", {"image_to_image": True}, "image to image needs a model with an autoencoder"),
        ("ddpm", {"guidance": 2.0}, "guidance 2 needs a null class"),
        ("ldm-kl", {"latent_size": (0, 8)}, r"latent size must be 1 to 4096 each way, got \(0, 8\)"),
    ],
)
def test_what_a_model_does_not_have_is_refused_before_the_work(name, changes, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        export(str(tiny_pipelines.saved(name)), tmp_path / "b", settings(name, **changes))
    assert not (tmp_path / "b").exists()


def test_a_bundle_that_draws_what_a_prompt_says_needs_one(bundle_of):
    with pytest.raises(UsageError, match="draws what a prompt says: give one"):
        bundle_request(bundle_of("sd-image"))
