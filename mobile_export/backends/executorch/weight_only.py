"""Products of float32 activations with 8 or 4-bit weights, which XNNPACK has and its partitioner does not ask for.

XNNPACK calls them f32-qc8w and f32-qc4w: fully connected, weights stored as codes with a scale per output channel.
ExecuTorch's schema and runtime take them. Its partitioner wants quantized activations wherever weights are quantized,
and its serializer knows no type for the bias of such a product, so the bias is not part of it.
"""

from __future__ import annotations

from typing import Any


def partitioner() -> Any:
    """XNNPACK's partitioner, which also takes linear(x, dequantize_per_channel(codes, …)) of a float32 x."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.gemm_configs import LinearConfig
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.utils.quant_utils import (
        is_dequant,
        is_dynamic_qdq,
        is_per_channel,
        is_quant,
        tag_as_implicit_q_dq,
    )
    from executorch.backends.xnnpack.utils.utils import get_input_node

    class WeightOnlyLinearConfig(LinearConfig):
        def get_deps(self, node: Any, ep: Any) -> tuple[bool, list[Any]]:
            """Whether the product can be delegated, and the nodes that go with it. An input that was rounded for
            something else, and a product that is not, are none of integers."""
            activation, weight = get_input_node(node, 0), get_input_node(node, 1)
            rounded = is_dequant(activation) and (is_dynamic_qdq(activation) or any(map(is_quant, node.users)))
            if len(node.args) > 2 or rounded or not (is_dequant(weight) and is_per_channel(weight)):
                return super().get_deps(node, ep)
            tag_as_implicit_q_dq(weight)  # part of the product, not an operation
            return True, [weight, *weight.all_input_nodes]

    configs = [WeightOnlyLinearConfig if config is LinearConfig else config for config in ALL_PARTITIONER_CONFIGS]
    return XnnpackPartitioner(configs=configs)
