"""Layers by themselves, on the inputs that are hardest for them."""

import math
from collections.abc import Callable

import onnx
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor, nn

from nmn_export.graph.names import output_names
from nmn_export.layers.folded import FoldedYat, FoldedYatConv
from nmn_export.ops import DOMAIN

NOISE = 0.01
"""Distance of a probe from its prototype, relative to the prototype's norm."""

_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

COPIES = 3
"""Probes for each prototype of a dense layer; blocks along each axis for a convolution."""


def near_prototypes(layer: FoldedYat, seed: int) -> Tensor:
    """Return inputs of a layer that lie within 1 % of its prototypes, where the distance cancels.

    Returns:
        [N · 3, K] for a dense layer, every prototype three times with other noise. For a
        convolution [ceil(O / 3^rank), C, *S]: filters side by side, so that at every block's place
        the patch is a filter of each group.
    """
    torch.manual_seed(seed)
    weight = layer.weight.float()
    exact = _tile_filters(layer) if isinstance(layer, FoldedYatConv) else weight.repeat(COPIES, 1)
    typical = float(weight.norm()) / math.sqrt(weight.numel())
    return (exact + NOISE * typical * torch.randn_like(exact)).to(layer.weight.dtype)


def _tile_filters(layer: FoldedYatConv) -> Tensor:
    """Lay the filters of each group on a grid of blocks that do not overlap."""
    weight, rank = layer.weight.float(), layer.weight.ndim - 2
    filters = len(weight) // layer.group
    blocks = COPIES**rank
    batch = math.ceil(filters / blocks)
    extent = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], layer.dilations, strict=True)]
    # A transposed convolution of a one-hot map writes a filter at each of its ones.
    chosen = torch.arange(batch * blocks).remainder(filters)
    hot = F.one_hot(chosen, filters).float().reshape(batch, *[COPIES] * rank, filters)
    hot = hot.movedim(-1, 1).repeat(1, layer.group, *[1] * rank)
    transpose: Callable[..., Tensor] = _TRANSPOSED[rank]
    # A block is a multiple of the stride, and begins where some patch begins.
    step = [math.ceil(e / s) * s for e, s in zip(extent, layer.strides, strict=True)]
    x: Tensor = transpose(hot, weight, None, step, 0, 0, layer.group, layer.dilations)
    begin = [-(-p // s) * s - p for p, s in zip(layer.pads[:rank], layer.strides, strict=True)]
    return F.pad(x, [p for b in reversed(begin) for p in (b, 0)])


def one_node_model(model: onnx.ModelProto, node: onnx.NodeProto, x: Tensor) -> onnx.ModelProto:
    """Return a model of one node of `model` with its weights and function, from input to output.

    Args:
        model: Model that holds the node, weights included.
        node: A ⵟ op whose weights are initializers.
        x: An input of it, for shape and dtype.
    """
    weights = [t for t in model.graph.initializer if t.name in set(node.input[1:])]
    dtype = weights[0].data_type
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    alone.output[0] = output_names(1)[0]
    output = helper.make_tensor_value_info(alone.output[0], dtype, None)
    graph = helper.make_graph(
        [alone],
        node.name,
        [helper.make_tensor_value_info(node.input[0], dtype, x.shape)],
        [output],
        weights,
    )
    return helper.make_model(
        graph,
        functions=[f for f in model.functions if (f.domain, f.name) == (DOMAIN, node.op_type)],
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )


class Product(nn.Module):
    """The op of a layer, without what the layer does to its input first.

    Args:
        layer: The folded layer.
    """

    def __init__(self, layer: FoldedYat) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Map the input of the op to its output."""
        return self.layer.product(x)
