"""The declaration of an op. Its ONNX schema, nodes, plugin fields and reports are made from it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

DOMAIN = "ai.nmn"
"""ONNX domain of the ops and of their functions."""

VERSION = 1
"""Version of the domain. It is also the `plugin_version` by which TensorRT finds the plugin."""

AttributeValue = float | int | tuple[int, ...] | str


@dataclass(frozen=True)
class OpSpec:
    """One `ai.nmn` op.

    Attributes:
        name: Name in ONNX. It must not be the name of a standard op: TensorRT ignores domains.
        summary: The formula, in one sentence.
        inputs: Inputs in order, each with its shape. No input is optional: a function would need
            control flow for that, which TensorRT does not parse.
        attributes: Defaults by name. An attribute with the default `None` is required.
        attribute_types: Python type of each attribute. `tuple` stands for a list of integers.
        torch_op: The PyTorch op (`torch.ops.nmn.…`) that is exported as this op.
        exact: The op in float64, with the distance computed from differences. All runtimes are
            compared with it. It takes the arguments of `torch_op`.
    """

    name: str
    summary: str
    inputs: dict[str, str]
    attributes: dict[str, AttributeValue | None]
    attribute_types: dict[str, type]
    torch_op: torch._ops.OpOverload
    exact: Callable[..., Tensor] = field(repr=False)


PLUGIN_ATTRIBUTES: dict[str, str] = {"plugin_namespace": DOMAIN, "plugin_version": str(VERSION)}
"""Carried by every node: TensorRT takes the plugin of this namespace and version if it is loaded,
and the function body if it is not."""
