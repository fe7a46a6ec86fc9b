"""How one class of `nmn.torch` becomes one of our layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Adapter:
    """How one class becomes one of our layers.

    Attributes:
        build: Takes a layer of the class and returns ours with the same options. Parameters may be
            on the meta device, because those of the given layer replace them. Options are read from
            the attributes that the forward passes of nmn read.
        parameters: Names of the parameters that the class can have. Ours have the same names.
        buffers: Names of its buffers. `build` passes them on.
        check: Takes our layer, with its parameters, and the words for it in a message. Raises
            `NmnExportError` if ours does not compute the same. `None` if it always does.
        children: Names of its modules. `build` passes their parameters on.
    """

    build: Callable[[Any], nn.Module]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...] = ()
    check: Callable[[Any, str], None] | None = None
    children: tuple[str, ...] = ()
