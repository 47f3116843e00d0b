"""Deferred code: the Python of a graph module is written when it is first asked for, not after every change.

torch's own `_LazyGraphModule` is a class that a module has to be made of; those of the exporter are not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule
from torch.fx.graph import _PyTreeCodeGen

WRITTEN = ("forward", "_code", "_lineno_map", "_prologue_start")  # what recompiling gives a module, or its class


class _Deferred:
    """Stands for one of these attributes in the class of a module, which is that module's own: asked for, it has all
    of them written."""

    def __init__(self, name: str, module: GraphModule, recompile: Callable[[GraphModule], Any]) -> None:
        self.name, self.module, self.recompile = name, weakref.ref(module), recompile

    def __get__(self, instance: GraphModule | None, owner: type) -> Any:
        module = self.module() if instance is None else instance
        if module is None:
            raise AttributeError(self.name)
        self.recompile(module)
        return getattr(owner if instance is None else instance, self.name)


def deferring(recompile: Callable[[GraphModule], Any]) -> Callable[[GraphModule], None]:
    """Stands for `GraphModule.recompile`, whose result only serialization uses: `recompile` runs at the first use."""

    def later(self: GraphModule) -> None:
        codegen = self._graph._codegen
        if isinstance(codegen, _PyTreeCodeGen):
            self._in_spec, self._out_spec = codegen.pytree_info.in_spec, codegen.pytree_info.out_spec
        for name in WRITTEN:
            self.__dict__.pop(name, None)
            setattr(type(self), name, _Deferred(name, self, recompile))
        for module in self.children():
            if isinstance(module, GraphModule):
                later(module)

    return later
