"""Two float16 numbers whose product is the attention scale; attention written out with them."""

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from hypothesis import given
from hypothesis import strategies as st

from correction.errors import UsageError
from mobile_export.backends.coreml.attention_scale import half_factors
from mobile_export.backends.coreml.explicit_attention import ExplicitAttention


@given(depth=st.integers(1, 2048))
def test_the_product_is_right_to_float32_noise(depth):
    a, b = half_factors(depth**-0.5)
    assert a == np.float16(a) and b == np.float16(b)
    assert abs(a * b * depth**0.5 - 1) < 5e-6
    assert 0.2 < a / b < 5


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, 2.0**-17, float("nan")])
def test_a_scale_that_no_depth_has_is_refused(scale):
    with pytest.raises(ValueError, match="attention scale must be"):
        half_factors(scale)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("options", [{}, {"norm_num_groups": 4, "residual_connection": True}, {"bias": True}])
def test_written_out_it_is_the_same_attention(heads, options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        attention = Attention(query_dim=16, heads=heads, dim_head=12, rescale_output_factor=1.5, **options).eval()
        x = torch.randn(2, 16, 4, 5)
    with torch.no_grad():
        expected = attention(x)
        attention.set_processor(ExplicitAttention())
        got = attention(x)
    assert got.shape == expected.shape and (got - expected).abs().max() < 5e-6


def test_it_attends_to_other_states_and_refuses_masks():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        attention = Attention(query_dim=16, cross_attention_dim=8, heads=2, dim_head=8).eval()
        x, context = torch.randn(2, 6, 16), torch.randn(2, 3, 8)
    with torch.no_grad():
        expected = attention(x, context)
        attention.set_processor(ExplicitAttention())
        assert (attention(x, context) - expected).abs().max() < 5e-6
    with pytest.raises(UsageError, match="masks are not supported"):
        attention(x, context, attention_mask=torch.zeros(2, 1, 3))
