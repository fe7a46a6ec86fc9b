"""A single YatAttention: its op alone, and keys near its queries."""

import math

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from nmn_export.layers.folded_attention import FoldedYatAttention
from nmn_export.ops import OPS
from nmn_export.report.single_layer import NOISE, op_dtype, tensor_types

OP = "YatAttention"

QUERIES, KEYS, BATCH = 16, 48, 2

TYPICAL_SCORE = 2.0
"""Size of the scores for which the output depends on all of them. Much larger ones leave one key,
and much smaller ones no difference."""


class AttentionOp(nn.Module):
    """The op of a layer, or of a node of a file that belongs to no layer.

    Args:
        source: Has the attributes of the op.
    """

    def __init__(self, source: FoldedYatAttention | onnx.NodeProto) -> None:
        super().__init__()
        given = (
            {a.name: helper.get_attribute_value(a) for a in source.attribute}
            if isinstance(source, onnx.NodeProto)
            else vars(source)
        )
        self.options = {
            name: OPS[OP].attribute_types[name](given.get(name, default))
            for name, default in OPS[OP].attributes.items()
        }

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Apply the op."""
        y: Tensor = torch.ops.nmn.yat_attention(q, k, v, mask, *self.options.values())
        return y


def is_attention(node: onnx.NodeProto) -> bool:
    """Return whether a ⵟ node is an attention, whose inputs are no weights."""
    return bool(node.op_type == OP)


def near_keys(
    model: onnx.ModelProto, node: onnx.NodeProto, op: AttentionOp, seed: int
) -> dict[str, Tensor]:
    """Return inputs of a node in which every key of a head is close to every query.

    The distance cancels there. The inputs are so small that all keys have a share of the output,
    because a single key would have a weight of one, however wrong its score is.

    Args:
        model: Model that holds the node. Shapes are inferred from it.
        node: An attention.
        op: Its op.
        seed: Of the numbers.

    Returns:
        q [2, H, 16, D], k [2, G, 48, D], v [2, G, 48, E] and a mask of zero, in the dtype of the
        node.
    """
    torch.manual_seed(seed)
    (heads, features), (key_heads, value_features) = _sizes(model, node)
    dtype = op_dtype(model, node)
    norm, noise = _norm_and_noise(op)
    centre = torch.randn(BATCH, key_heads, 1, features)
    centre *= norm / centre.norm(dim=-1, keepdim=True)
    noise *= norm / math.sqrt(features)

    def near(heads: int, count: int) -> Tensor:
        repeated = centre.repeat_interleave(heads // key_heads, 1)
        return repeated + noise * torch.randn(BATCH, heads, count, features)

    inputs = {
        "q": near(heads, QUERIES),
        "k": near(key_heads, KEYS),
        "v": torch.randn(BATCH, key_heads, KEYS, value_features),
        "mask": torch.zeros(1, 1, 1, 1),
    }
    return {name: t.to(dtype) for name, t in inputs.items()}


def _sizes(model: onnx.ModelProto, node: onnx.NodeProto) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (H, D) and (G, E) of a node. A size that is not known is taken as 1."""
    types = tensor_types(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    q, v = (types[node.input[index]] for index in (0, 2))
    heads, features, groups, value_features = (
        tensor.shape.dim[axis].dim_value or 1 for tensor in (q, v) for axis in (1, 3)
    )
    return (max(heads, groups), features), (groups, value_features)


def _norm_and_noise(op: AttentionOp) -> tuple[float, float]:
    """Return the norm of queries and keys, and the relative noise, for scores of typical size.

    With noise ν and T = ‖q‖² + ‖k‖², the distance is about ν² T, and the score
    c (T/2)² / (ν² T + ε). A spherical op fixes T, so ν is larger than 1 % there.
    """
    scale, epsilon = abs(float(op.options["scale"])), float(op.options["epsilon"])
    if not scale:
        return 1.0, NOISE
    if op.options["spherical"]:
        noise = math.sqrt(max(scale / TYPICAL_SCORE - epsilon, 0) / 2)
        return 1.0, min(max(noise, NOISE), 1.0)
    half = TYPICAL_SCORE * NOISE**2
    norms = 2 * (half + math.sqrt(half**2 + scale * TYPICAL_SCORE * epsilon)) / scale
    return math.sqrt(norms / 2), NOISE
