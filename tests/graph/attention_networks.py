"""Cases of YatAttention as ONNX models of one node."""

from collections.abc import Sequence

import onnx
import onnx_ir as ir
import torch
from onnx import helper
from torch import Tensor

from nmn_export.graph.functions import function
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION
from nmn_export.runtime.arrays import to_numpy
from tests.cases import AttentionCase
from tests.graph.networks import ONNX_TYPES


def full_mask(case: AttentionCase, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the mask of a case with four axes; one zero if it has none."""
    mask = case.tensors(dtype)[3]
    mask = torch.zeros((), dtype=dtype) if mask is None else mask
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)


def tensors_of(case: AttentionCase, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the inputs of the model of a case by name."""
    q, k, v, mask = case.tensors(dtype)
    return {"Q": q, "K": k, "V": v} | ({} if mask is None else {"M": full_mask(case, dtype)})


def one_attention_node(
    case: AttentionCase,
    dtype: torch.dtype = torch.float32,
    opset: int = 18,
    beside: Sequence[AttentionCase] = (),
) -> onnx.ModelProto:
    """Return a model of one node, the op of a case. Batch and lengths are dynamic.

    Args:
        case: The case.
        dtype: Of all tensors.
        opset: Version of the standard ops.
        beside: Other cases that the body has to support as well.
    """
    model = _without_body(case, dtype, opset)
    nodes = list(model.graph) + [n for c in beside for n in _without_body(c, dtype, opset).graph]
    body = function(nodes[0].op_type, nodes, opset)
    model.functions[body.identifier()] = body
    return ir.to_proto(model)


def _without_body(case: AttentionCase, dtype: torch.dtype, opset: int) -> ir.Model:
    node = helper.make_node(
        "YatAttention",
        ["Q", "K", "V", "M"],
        ["Y"],
        domain=DOMAIN,
        epsilon=case.epsilon,
        scale=case.scale,
        is_causal=int(case.is_causal),
        spherical=int(case.spherical),
        power=case.power,
        guard=case.guard,
        **PLUGIN_ATTRIBUTES,
    )
    inputs = tensors_of(case, dtype)
    no_mask = [] if "M" in inputs else [ir.Tensor(to_numpy(full_mask(case, dtype)), name="M")]
    inputs["Y"] = inputs["V"]
    values = {
        # A length of one may be one that the mask broadcasts.
        name: [f"b{name}", t.shape[1], f"l{name}", f"m{name}" if name == "M" else t.shape[3]]
        for name, t in inputs.items()
    }
    infos = [helper.make_tensor_value_info(n, ONNX_TYPES[dtype], s) for n, s in values.items()]
    infos[-1].type.tensor_type.shape.dim[1].dim_param = "heads"
    graph = helper.make_graph(
        [node], case.id, infos[:-1], infos[-1:], [ir.serde.serialize_tensor(t) for t in no_mask]
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))
