"""shared_copy: a network with other layers in it, that takes no memory for what stays the same."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping

from torch import nn


def shared_copy(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """A copy of `model` with `replacements` in place of some of its modules.

    Its parameters and buffers are those of `model` itself: give the copy new ones, never change them in place.
    What is replaced is not copied; a replacement stands in all places of its original.
    """
    kept = itertools.chain(model.parameters(), model.buffers())
    copies: dict[int, object] = {id(tensor): tensor for tensor in kept}
    copies |= {id(original): other for original, other in replacements.items()}
    return copy.deepcopy(model, copies)
