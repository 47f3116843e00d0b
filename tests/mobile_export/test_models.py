"""Loading models: what is loaded, and what is refused by name before any work is done."""

import json
import re

import pytest
import tiny
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet1DModel

from correction import CheckFailed, UsageError
from mobile_export.models.diffusion_model import TorchDenoiser, load_model
from mobile_export.models.zoo import zoo_folder, zoo_names

BLOCKS = {"down_block_types": ("DownBlock2D",) * 2}


def test_a_folder_with_labels(model, model_folder):
    assert (model.name, model.source) == ("tiny", str(model_folder))
    assert model.classes == tuple(tiny.CLASSES) and model.null_label == tiny.NULL_LABEL
    assert model.conditional and model.sample_shape == (3, 8, 8)
    assert [tuple(t.shape) for t in model.example_inputs()] == [(1, 3, 8, 8), (1,), (1,)]
    assert model.unet.dtype == torch.float32 and not model.unet.training
    assert not any(p.requires_grad for p in model.unet.parameters())
    assert model.scheduler_config["clip_sample"] is True


def test_an_unconditional_folder(plain_model):
    assert plain_model.classes == () and plain_model.null_label is None and not plain_model.conditional
    assert len(plain_model.example_inputs()) == 2


def test_without_labels_the_classes_are_numbers(tmp_path):
    folder = tiny.save_model(tmp_path / "m", tiny.make_unet(**BLOCKS))
    assert load_model(str(folder)).classes == ("0", "1", "2", "3")


def test_class_names_become_labels(model):
    assert [model.label(name) for name in tiny.CLASSES] == [0, 1, 2]
    with pytest.raises(UsageError, match="unknown class 'cow': tiny has cat, dog, fox"):
        model.label("cow")


def test_the_digest_tells_weights_and_schedulers_apart(model, tmp_path):
    def digest(name, unet, **scheduler):
        return load_model(str(tiny.save_model(tmp_path / name, unet, **scheduler))).digest

    assert digest("same", tiny.make_unet(1)) == model.digest
    changed = tiny.make_unet(1)
    changed.conv_out.bias.data[1] += 1e-6
    assert digest("weight", changed) != model.digest
    assert digest("scheduler", tiny.make_unet(1), beta_schedule="scaled_linear") != model.digest


def test_the_reference_is_the_network_itself(model):
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(3, 3, 8, 8, generator=generator), torch.tensor([2, 0, 1])
    theirs = model.unet(x, 321, class_labels=labels).sample
    ours = TorchDenoiser(model.unet)(x.numpy(), 321.0, class_labels=labels.numpy())
    assert torch.equal(torch.from_numpy(ours), theirs)


UNSUPPORTED = {
    "ResnetDownsampleBlock2D": {"down_block_types": ("DownBlock2D", "ResnetDownsampleBlock2D")},
    "ResnetUpsampleBlock2D": {"up_block_types": ("ResnetUpsampleBlock2D", "UpBlock2D")},
    "SkipDownBlock2D": {"down_block_types": ("SkipDownBlock2D", "DownBlock2D"), "block_out_channels": (32, 64)},
    "mid_block_type = None": {"mid_block_type": None},
    "act_fn = 'gelu'": {"act_fn": "gelu"},
    "downsample_type = 'resnet'": {"downsample_type": "resnet"},
    "upsample_type = 'resnet'": {"upsample_type": "resnet"},
    "time_embedding_type = 'fourier'": {"time_embedding_type": "fourier"},
    "class_embed_type = 'timestep'": {"class_embed_type": "timestep", "num_class_embeds": None},
    "6 output channels for 3 input channels": {"out_channels": 6},
    "sample_size": {"sample_size": None},
    "5 channels of the first block": {"block_out_channels": (5, 10), "norm_num_groups": 5, **BLOCKS},
    "does not run on its own sample_size 7": {"sample_size": 7},
    "does not run on its own sample_size [8, 9]": {"sample_size": (8, 9)},
}


@pytest.mark.parametrize("named", UNSUPPORTED)
def test_unsupported_architectures_are_refused_by_name(named, tmp_path):
    folder = tiny.save_model(tmp_path / "m", tiny.make_unet(**UNSUPPORTED[named]))
    with pytest.raises(UsageError, match=re.escape(named)) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value)


def test_another_kind_of_network_is_named(tmp_path):
    network = UNet1DModel(block_out_channels=(8, 8, 8), sample_size=16, layers_per_block=1)
    DDPMPipeline(unet=network, scheduler=DDPMScheduler()).save_pretrained(tmp_path / "m")
    with pytest.raises(UsageError, match="its unet is UNet1DModel; supported: UNet2DModel"):
        load_model(str(tmp_path / "m"))


WRONG_LABELS = {
    "not JSON": "{",
    "not text": b"\xff\xfe",
    "a list": ["cat"],
    "classes are a word": {"classes": "cat"},
    "classes are numbers": {"classes": [1, 2]},
    "a class twice": {"classes": ["cat", "cat"]},
    "more classes than embeddings": {"classes": list("abcde")},
    "no embedding left for null": {"classes": list("abcd"), "null": 4},
    "null beyond the embeddings": {"classes": ["cat"], "null": 4},
    "null below zero": {"classes": ["cat"], "null": -1},
    "null is a class": {"classes": ["cat", "dog"], "null": 1},
    "null is a word": {"classes": ["cat"], "null": "none"},
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_labels_that_make_no_sense_are_refused(name, tmp_path):
    folder = tiny.save_model(tmp_path / "m", tiny.make_unet(**BLOCKS))
    value = WRONG_LABELS[name]
    data = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    (folder / "labels.json").write_bytes(data)
    with pytest.raises(UsageError, match=r"labels\.json"):
        load_model(str(folder))


def test_labels_of_an_unconditional_network_are_refused(tmp_path):
    folder = tiny.save_model(tmp_path / "m", tiny.make_unet(**tiny.UNCONDITIONAL), {"classes": ["cat"]})
    with pytest.raises(UsageError, match=r"labels\.json.*no class embeddings"):
        load_model(str(folder))


def test_weights_that_are_not_finite_are_named(tmp_path):
    unet = tiny.make_unet(**BLOCKS)
    unet.mid_block.resnets[0].conv1.weight.data[0, 0, 0, 0] = float("nan")
    model = load_model(str(tiny.save_model(tmp_path / "m", unet)))
    with pytest.raises(CheckFailed, match=r"weight mid_block\.resnets\.0\.conv1\.weight holds NaN"):
        _ = model.unet


def test_nothing_at_the_path_lists_what_would_do(tmp_path):
    with pytest.raises(UsageError, match=r"no model at .*nowhere.*diffusers folder, a hub name"):
        load_model(str(tmp_path / "nowhere"))


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(UsageError, match=r"not a diffusers pipeline folder: it has no model_index\.json"):
        load_model(str(tmp_path))


def test_a_pipeline_without_weights(tmp_path):
    folder = tiny.save_model(tmp_path / "m", tiny.make_unet(**BLOCKS))
    weights = next(folder.rglob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UsageError, match=r"unet/diffusion_pytorch_model\.safetensors is missing \(.*pickle"):
        load_model(str(folder))


def test_truncated_weights(tmp_path):
    folder = tiny.save_model(tmp_path / "m", tiny.make_unet(**BLOCKS))
    weights = next(folder.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    model = load_model(str(folder))
    with pytest.raises(UsageError, match=r"unet/diffusion_pytorch_model\.safetensors cannot be read: "):
        _ = model.unet


def test_the_models_of_the_package_load_by_name():
    assert "emoji32" in zoo_names()
    model = load_model("emoji32")
    assert model.name == model.source == "emoji32" and model.sample_shape == (3, 32, 32)
    assert len(model.classes) >= 2 and model.null_label not in range(len(model.classes))
    with pytest.raises(KeyError):
        zoo_folder("emoji33")
