"""A single ⵟ layer: its one-node ONNX model, its PyTorch module, and inputs near its weights."""

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor, nn

from nmn_export.graph.names import output_names
from nmn_export.layers.folded import FoldedYat, FoldedYatConv, FoldedYatConvTranspose
from nmn_export.ops import DOMAIN
from nmn_export.ops.conv import torch_padding
from nmn_export.ops.conv_transpose import filters_of

NOISE = 0.01
"""Distance of an input from its prototype, relative to the norm of the prototype."""

_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

COPIES = 3
"""Inputs per prototype of a dense layer, and blocks per axis for a convolution."""

LARGEST_OUTPUT = 2**24
"""Elements of the output of a dense layer. A vocabulary has more prototypes than can be tried."""

LAYER_INPUT = "x"
"""Name of the input of a single layer, in ONNX and in PyTorch."""


def near_prototypes(layer: FoldedYat, seed: int) -> Tensor:
    """Return inputs of a layer that lie within 1 % of its prototypes, where the distance cancels.

    Args:
        layer: The folded layer.
        seed: Of the noise.

    Returns:
        For a dense layer [N · 3, K]: every prototype three times, each with other noise. Only some
        prototypes are taken if the output would have more than 2²⁴ elements. For a convolution
        [ceil(O / 3^rank), C, *S]: filters side by side in blocks, so that the patch of a block is a
        filter of each group. A patch of a transposed convolution with stride has zeros at most
        taps; there it is the part of the filter at the other taps. The dtype is that of the
        weights.
    """
    torch.manual_seed(seed)
    weight = layer.weight.float()
    if isinstance(layer, FoldedYatConv):
        exact = _tile_filters(layer)
    elif isinstance(layer, FoldedYatConvTranspose):
        exact = _tile_blocks(layer)
    else:
        exact = _some_rows(weight)
    typical = float(weight.norm()) / math.sqrt(weight.numel())
    return (exact + NOISE * typical * torch.randn_like(exact)).to(layer.weight.dtype)


def _some_rows(weight: Tensor) -> Tensor:
    """Return evenly chosen rows, each as often as `COPIES` says."""
    count = min(len(weight), max(1, LARGEST_OUTPUT // (COPIES * len(weight))))
    chosen = torch.arange(count) * len(weight) // count
    return weight[chosen].repeat(COPIES, 1)


def _tile_filters(layer: FoldedYatConv) -> Tensor:
    """Place the filters of each group on a grid of blocks that do not overlap."""
    weight, rank = layer.weight.float(), layer.weight.ndim - 2
    extent = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], layer.dilations, strict=True)]
    # A block is a multiple of the stride, and begins where some patch begins.
    step = [math.ceil(e / s) * s for e, s in zip(extent, layer.strides, strict=True)]
    begin = [-(-p // s) * s - p for p, s in zip(layer.pads[:rank], layer.strides, strict=True)]
    x = _tiled(weight, layer.group, step, layer.dilations)
    return F.pad(x, [p for b in reversed(begin) for p in (b, 0)])


def _tile_blocks(layer: FoldedYatConvTranspose) -> Tensor:
    """Place the pixels whose patches are closest to the filters on a grid of blocks.

    The zeros around the grid write the output pixels that the pads remove.
    """
    blocks = _closest_blocks(layer)
    x = _tiled(blocks, layer.group, blocks.shape[2:], (1,) * len(layer.strides))
    steps = [s for s in reversed(layer.strides) for _ in range(2)]
    return F.pad(x, [-(-p // s) for p, s in zip(torch_padding(layer.pads), steps, strict=True)])


def _closest_blocks(layer: FoldedYatConvTranspose) -> Tensor:
    """Return the pixels of the patch that is closest to each filter, as [O, C / group, *block].

    Output pixels whose positions have the same remainder by the stride meet the same taps. The
    closest patch has the filter's values at the taps with the largest norm.
    """
    filters = filters_of(layer.weight.float(), layer.group)
    reach = [(k - 1) * d for k, d in zip(filters.shape[2:], layer.dilations, strict=True)]
    last = [r // s for r, s in zip(reach, layer.strides, strict=True)]
    blocks = filters.new_zeros(*filters.shape[:2], *(n + 1 for n in last))
    largest = torch.full((len(filters),), -1.0)
    for phase in itertools.product(*map(range, layer.strides)):
        block, met = torch.zeros_like(blocks), torch.zeros_like(filters)
        for tap in itertools.product(*map(range, filters.shape[2:])):
            at = [t * d - r for t, d, r in zip(tap, layer.dilations, phase, strict=True)]
            if all(a % s == 0 for a, s in zip(at, layer.strides, strict=True)):
                here: tuple[Any, ...] = (..., *tap)
                pixel = (n - a // s for n, a, s in zip(last, at, layer.strides, strict=True))
                there: tuple[Any, ...] = (..., *pixel)
                block[there] = met[here] = filters[here]
        norm = met.flatten(1).norm(dim=1)
        better = (norm > largest).reshape(-1, *[1] * (blocks.ndim - 1))
        blocks = torch.where(better, block, blocks)
        largest = torch.maximum(norm, largest)
    return blocks


def _tiled(filters: Tensor, group: int, step: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """Return images of filters [O, C / group, *K] side by side, one of each group at a place."""
    rank, per_group = filters.ndim - 2, len(filters) // group
    places = COPIES**rank
    batch = math.ceil(per_group / places)
    # A transposed convolution of a one-hot map writes a filter at each of its ones.
    chosen = torch.arange(batch * places).remainder(per_group)
    hot = F.one_hot(chosen, per_group).float().reshape(batch, *[COPIES] * rank, per_group)
    hot = hot.movedim(-1, 1).repeat(1, group, *[1] * rank)
    transpose: Callable[..., Tensor] = _TRANSPOSED[rank]
    return transpose(hot, filters, None, step, 0, 0, group, dilations)


def op_dtype(model: onnx.ModelProto, node: onnx.NodeProto) -> torch.dtype:
    """Return the dtype of a ⵟ op in a file. The layer may store its weights in another one."""
    dtype = tensor_types(model.graph)[node.input[1]].elem_type
    return ir.tensor_adapters.to_torch_dtype(ir.DataType(dtype))


def tensor_types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Return the dtypes and shapes of the values of a graph by name, as far as they are known."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type for value in values} | {
        tensor.name: helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
        for tensor in graph.initializer
    }


def one_node_model(
    model: onnx.ModelProto, node: onnx.NodeProto, inputs: Mapping[str, Tensor]
) -> onnx.ModelProto:
    """Return a model of one node of `model`, with its weights and its function.

    Args:
        model: Model that holds the node, weights included.
        node: A ⵟ op whose weights are initializers, or computed from initializers alone.
        inputs: The first inputs of the op, by the names that they have in the returned model. All
            have one dtype.
    """
    kept = node.input[len(inputs) :]
    sources = _sources(model.graph, set(kept))
    needed = {*kept, *(name for source in sources for name in source.input)}
    weights = [t for t in model.graph.initializer if t.name in needed]
    (dtype,) = {int(ir.tensor_adapters.from_torch_dtype(t.dtype)) for t in inputs.values()}
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    alone.input[: len(inputs)] = inputs
    alone.output[0] = output_names(1)[0]
    output = helper.make_tensor_value_info(alone.output[0], dtype, None)
    graph = helper.make_graph(
        [*sources, alone],
        node.name,
        [helper.make_tensor_value_info(name, dtype, t.shape) for name, t in inputs.items()],
        [output],
        weights,
    )
    return helper.make_model(
        graph,
        functions=[f for f in model.functions if (f.domain, f.name) == (DOMAIN, node.op_type)],
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )


def _sources(graph: onnx.GraphProto, names: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that compute values from initializers, in the order of the graph."""
    wanted, found = set(names), []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            found.append(node)
            wanted |= set(node.input)
    return found[::-1]


def as_called(layer: FoldedYat, node: onnx.NodeProto) -> FoldedYat:
    """Return a layer with the output padding of its call, which may have given an output size."""
    if not isinstance(layer, FoldedYatConvTranspose):
        return layer
    (padding,) = [a.ints for a in node.attribute if a.name == "output_padding"]
    called = copy.copy(layer)
    called.output_padding = tuple(padding)
    return called


class LayerOp(nn.Module):
    """The op of a layer, without the padding or conversion that the layer applies to its input.

    Args:
        layer: The folded layer.
    """

    def __init__(self, layer: FoldedYat) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Map the input of the op to its output."""
        return self.layer.product(x)
