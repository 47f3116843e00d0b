"""TextEncoder: the text transformer of CLIP, equal to that of transformers, in a form that exporters take."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from correction import UsageError
from mobile_export.models.text_encoder import TextEncoder, text_encoder_weights

CONFIG = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def theirs(**changes) -> CLIPTextModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPTextModel(CLIPTextConfig(**{**CONFIG, **changes})).eval()
        for parameter in model.parameters():  # transformers starts near 0, with norms of gain 1 and bias 0
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def tokens(count: int = 2, length: int = 16) -> torch.Tensor:
    return torch.randint(0, 50, (count, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "quick_gelu"}, {"hidden_act": "gelu", "layer_norm_eps": 1e-3}], ids=str
)
@pytest.mark.parametrize("length", [16, 7])
def test_the_encoder_is_the_one_of_transformers(changes, length):
    model = theirs(**changes)
    encoder, ids = TextEncoder.of(model), tokens(length=length)
    with torch.inference_mode():
        expected = model(ids).last_hidden_state
        assert (encoder(ids) - expected).abs().max() <= 1e-5
    assert expected.abs().max() > 1 and expected.shape == (2, length, 32)


def test_a_token_does_not_see_those_after_it():
    encoder, ids = TextEncoder.of(theirs()), tokens(1)
    changed = ids.clone()
    changed[0, 9] = (ids[0, 9] + 1) % 50
    difference = (encoder(ids) - encoder(changed)).abs().amax(-1)[0]
    assert torch.equal(difference[:9], torch.zeros(9)) and (difference[9:] > 0).all()


def test_layers_are_named_as_in_the_weight_files():
    model = theirs()
    encoder = TextEncoder.of(model)
    assert encoder.max_length == 16 and encoder.width == 32
    assert "text_model.encoder.layers.2.self_attn.q_proj" in dict(encoder.named_modules())
    named = text_encoder_weights(model.state_dict())
    assert set(named) == set(encoder.state_dict())
    for key, value in encoder.state_dict().items():  # shared, not copied
        assert value.data_ptr() == named[key].data_ptr(), key
    old = {f"text_model.{k}": v for k, v in model.state_dict().items()}
    old["text_model.embeddings.position_ids"] = torch.arange(16)
    assert set(text_encoder_weights(old)) == set(named)


@pytest.mark.parametrize("length", [16, 7])
def test_it_exports_with_shapes_and_mask_fixed(length):
    encoder, ids = TextEncoder.of(theirs()), tokens(1, length)
    exported = torch.export.export(encoder, (ids,)).run_decompositions({})
    assert torch.allclose(exported.module()(ids), encoder(ids), atol=1e-6)
    operations = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    if length == 16:  # nothing that Core ML's converter refuses
        assert not [name for name in operations if "alias" in name or "slice" in name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "activation 'relu'; supported: quick_gelu, gelu"),
        ({"num_attention_heads": 5}, "5 attention heads do not divide a width of 32"),
    ],
)
def test_what_it_does_not_have_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        TextEncoder({**CLIPTextConfig(**CONFIG).to_dict(), **changes})
