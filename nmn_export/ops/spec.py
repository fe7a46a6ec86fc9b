"""An op's contract, from which its ONNX schema, its nodes and its reports are made."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

DOMAIN = "ai.nmn"
"""ONNX domain of the ops and of their functions."""

VERSION = 1
"""Version of the domain; also `plugin_version`, by which TensorRT looks the plugin up."""

AttributeValue = float | int | tuple[int, ...] | str


@dataclass(frozen=True)
class OpSpec:
    """One `ai.nmn` op.

    Attributes:
        name: Its name in ONNX, never one that ONNX itself uses: TensorRT ignores domains.
        summary: One sentence with the formula.
        inputs: Inputs in order, each with its shape. None is optional: a function cannot do
            without one unless it branches, and TensorRT does not parse the branch.
        attributes: Names, with a default; `None` where the node must say, and the ONNX type then
            follows `attribute_types`.
        attribute_types: The Python type of each attribute; `tuple` stands for a list of integers.
        torch_op: The PyTorch op (`torch.ops.nmn.…`) that the exporter turns into this one.
        exact: The op in float64 with the distance by direct differences: the truth that every
            runtime is compared with. Takes the arguments of `torch_op`.
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
