"""What norms make of zeros is made once for each size of image."""

import torch
from torch import nn

from mobile_export.backends.executorch.normalization import GroupNorm
from mobile_export.backends.executorch.shared_zeros import share_zeros


class Norms(nn.Module):
    """Three norms of 6 x 5 pixels, one of 3 x 5, and a product with 0 that is not a norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(GroupNorm(nn.GroupNorm(2, 4)) for _ in range(4))

    def forward(self, x):
        y = self.norms[1](self.norms[0](x).sin())
        z = self.norms[2](torch.cat([y[:, :3], y[:, 3:]], 1)).cos()
        return self.norms[3](z[:, :3]), (z + 3.0) * 0.0 + x * 2.0


def count(program, target):
    return sum(node.target is target for node in program.graph_module.graph.nodes)


def test_one_a_size_is_left_and_the_values_stay():
    x = torch.randn((2, 6, 5, 4), generator=torch.Generator().manual_seed(0))
    program = torch.export.export(Norms().eval(), (x,), strict=False)
    before, products = program.module()(x), count(program, torch.ops.aten.mul.Tensor)
    reshapes = count(program, torch.ops.aten.reshape.default)
    share_zeros(program)
    # Of the four norms' zeros those of 6 x 5 and of 3 x 5 are left; the fifth has a shape of its own.
    assert products - count(program, torch.ops.aten.mul.Tensor) == 2
    assert reshapes - count(program, torch.ops.aten.reshape.default) == 4  # the weights over w and h of two norms
    program.validate()
    assert all(map(torch.equal, before, program.module()(x)))


def test_what_depends_on_anything_else_is_left_alone():
    class Network(nn.Module):
        def forward(self, x):
            return x * 0.0 + x, x * 0.0 + 1.0, x * 0.0 + 2.0, x.sin() + 1.0, x.cos() + 1.0

    x = torch.tensor([1.0, 2.0])
    program = torch.export.export(Network().eval(), (x,), strict=False)
    before = program.module()(x)
    share_zeros(program)
    assert count(program, torch.ops.aten.mul.Tensor) == 1 and count(program, torch.ops.aten.add.Tensor) == 5
    assert all(map(torch.equal, before, program.module()(x)))
