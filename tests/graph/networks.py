"""Test cases as networks and as ONNX models, and checks of such models."""

from collections.abc import Sequence

import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from nmn_export.graph.functions import function
from nmn_export.layers import YatConv1d, YatConv2d, YatConv3d, YatDense, YatLayer
from nmn_export.layers.folded import FoldedYat, FoldedYatConv
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION
from nmn_export.runtime.arrays import to_numpy, to_torch
from nmn_export.runtime.onnx_reference import OnnxReferenceRunner
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from nmn_export.runtime.runner import Runner
from tests.cases import ConvCase, DenseCase

_CONVS = {1: YatConv1d, 2: YatConv2d, 3: YatConv3d}

ONNX_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
}


class Sum(nn.Module):
    """Adds the outputs of two layers, each with its own input."""

    def __init__(self, **second: object) -> None:
        super().__init__()
        self.left = YatDense(6, 3)
        self.right = YatDense(6, 3, **second)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.left(x) + self.right(y)


def runners(model: onnx.ModelProto) -> list[Runner]:
    """Return the model in every runtime that runs ONNX files on a CPU."""
    return [OnnxRuntimeRunner(model), OnnxReferenceRunner(model)]


def output_of(runner: Runner, **inputs: Tensor) -> Tensor:
    """Run a model that has one output, and return it."""
    (y,) = runner.run({name: to_numpy(x) for name, x in inputs.items()}).values()
    return to_torch(y)


def layer_of(case: DenseCase | ConvCase) -> YatLayer:
    """Return a layer with the options and parameters of a case, without padding."""
    _, weight, bias = case.tensors()
    options = {
        "bias": bias is not None,
        "scalar_bias": case.bias == "scalar",
        "constant_alpha": case.alpha,
        "epsilon": case.epsilon,
    }
    layer: YatLayer
    if isinstance(case, DenseCase):
        layer = YatDense(case.in_features, case.out_features, spherical=case.spherical, **options)
    else:
        geometry = (case.kernel, case.strides, 0, case.dilations, case.group)
        layer = _CONVS[case.rank](case.channels, case.out_channels, *geometry, **options)
    parameters = {"weight": weight} | ({} if bias is None else {"bias": bias})
    layer.load_state_dict(parameters)
    return layer


def folded(case: DenseCase | ConvCase) -> FoldedYat:
    """Return the folded layer of a case with the padding of the case."""
    layer = layer_of(case)
    if isinstance(case, DenseCase):
        return layer.fold()
    return FoldedYatConv(
        layer.folded_parameters(),
        padder=None,
        strides=case.strides,
        pads=case.pads,
        dilations=case.dilations,
        group=case.group,
    )


def full_bias(arguments: tuple[object, ...]) -> tuple[object, ...]:
    """Return the arguments of an op with one bias for each output, zero if there was none."""
    x, weight, bias, *rest = arguments
    bias = weight.new_zeros(len(weight)) if bias is None else bias.expand(len(weight))
    return (x, weight, bias, *rest)


def one_node(
    case: DenseCase | ConvCase,
    dtype: torch.dtype = torch.float32,
    opset: int = 18,
    beside: Sequence[DenseCase | ConvCase] = (),
) -> onnx.ModelProto:
    """Return a model of one node, the op of a case. Every axis of its input is dynamic.

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


def _without_body(case: DenseCase | ConvCase, dtype: torch.dtype, opset: int) -> ir.Model:
    x, weight, bias, epsilon, alpha, *rest = full_bias(case.arguments(dtype))
    if isinstance(case, DenseCase):
        op, attributes = "YatDense", {"spherical": int(case.spherical)}
    else:
        op = "YatConv"
        attributes = dict(zip(("strides", "pads", "dilations", "group"), rest, strict=True))
        attributes["kernel_shape"] = case.kernel
    node = helper.make_node(
        op,
        ["X", "W", "B"],
        ["Y"],
        domain=DOMAIN,
        epsilon=float(epsilon),
        alpha=float(alpha),
        **attributes,
        **PLUGIN_ATTRIBUTES,
    )
    weights = [ir.Tensor(to_numpy(t), name=n) for n, t in (("W", weight), ("B", bias))]
    graph = helper.make_graph(
        [node],
        case.id,
        [helper.make_tensor_value_info("X", ONNX_TYPES[dtype], [f"x{i}" for i in range(x.ndim)])],
        [helper.make_tensor_value_info("Y", ONNX_TYPES[dtype], [f"y{i}" for i in range(x.ndim)])],
        [ir.serde.serialize_tensor(t) for t in weights],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def assert_valid(model: onnx.ModelProto) -> None:
    """Fail unless the model passes the full check and strict shape inference."""
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    )
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        assert value.type.tensor_type.elem_type, f"'{value.name}' has no type"
        assert value.type.tensor_type.HasField("shape"), f"'{value.name}' has no shape"


def assert_one_op_with_its_definition(model: onnx.ModelProto, op: str, path: str) -> None:
    """Fail unless there is one ⵟ node, named after its module, and one function for it."""
    (node,) = [node for node in model.graph.node if node.domain]
    assert (node.domain, node.op_type, node.name) == (DOMAIN, op, path)
    assert list(node.input[1:]) == [f"{path}.weight", f"{path}.bias"]
    assert {t.name for t in model.graph.initializer} >= set(node.input[1:])
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert attributes["plugin_namespace"] == b"ai.nmn"
    assert attributes["plugin_version"] == b"1"
    assert [(f.domain, f.name) for f in model.functions] == [(DOMAIN, op)]
    assert {o.domain: o.version for o in model.opset_import}[DOMAIN] == VERSION
