"""Test cases as networks and as ONNX models, and checks of such models."""

from collections.abc import Sequence

import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from nmn_export.graph.functions import function
from nmn_export.layers import (
    YatConv1d,
    YatConv2d,
    YatConv3d,
    YatConvTranspose1d,
    YatConvTranspose2d,
    YatConvTranspose3d,
    YatDense,
    YatLayer,
)
from nmn_export.layers.folded import FoldedYat, FoldedYatConv, FoldedYatConvTranspose
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION
from nmn_export.runtime.arrays import to_numpy, to_torch
from nmn_export.runtime.onnx_reference import OnnxReferenceRunner
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from nmn_export.runtime.runner import Runner
from tests.cases import ConvCase, ConvTransposeCase, DenseCase

_CONVS = {1: YatConv1d, 2: YatConv2d, 3: YatConv3d}

_TRANSPOSED = {1: YatConvTranspose1d, 2: YatConvTranspose2d, 3: YatConvTranspose3d}

Case = DenseCase | ConvCase | ConvTransposeCase

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


def assert_empty_gives_empty(runner: Runner, x: Tensor, y: Tensor) -> None:
    """Fail unless an empty input gives an empty output, for the input `x` of an op and its output.

    Args:
        runner: Runs a model whose first axis may be empty.
        x: Input; its first axis is dynamic.
        y: Its output.
    """
    empty = output_of(runner, X=x[:0])
    assert (empty.shape, empty.dtype) == (y[:0].shape, y.dtype), runner.name


def layer_of(case: Case) -> YatLayer:
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
        kinds = _TRANSPOSED if isinstance(case, ConvTransposeCase) else _CONVS
        options |= {"stride": case.strides, "dilation": case.dilations, "groups": case.group}
        layer = kinds[case.rank](case.channels, case.out_channels, case.kernel, **options)
    parameters = {"weight": weight} | ({} if bias is None else {"bias": bias})
    layer.load_state_dict(parameters)
    return layer


def folded(case: Case) -> FoldedYat:
    """Return the folded layer of a case with the padding of the case."""
    layer = layer_of(case)
    if isinstance(case, DenseCase):
        return layer.fold()
    geometry = {"strides": case.strides, "pads": case.pads, "dilations": case.dilations}
    parameters, group = layer.folded_parameters(), case.group
    if isinstance(case, ConvTransposeCase):
        extra = case.output_padding
        return FoldedYatConvTranspose(parameters, output_padding=extra, group=group, **geometry)
    return FoldedYatConv(parameters, padder=None, group=group, **geometry)


def full_bias(arguments: tuple[object, ...], outputs: int | None = None) -> tuple[object, ...]:
    """Return the arguments of an op with one bias for each output, zero if there was none.

    Args:
        arguments: Those of the torch op.
        outputs: Number of outputs; by default that of the rows of the weight.
    """
    x, weight, bias, *rest = arguments
    count = len(weight) if outputs is None else outputs
    bias = weight.new_zeros(count) if bias is None else bias.expand(count)
    return (x, weight, bias, *rest)


def one_node(
    case: Case,
    dtype: torch.dtype = torch.float32,
    opset: int = 18,
    beside: Sequence[Case] = (),
    fixed: bool = False,
) -> onnx.ModelProto:
    """Return a model of one node, the op of a case. Every axis of its input is dynamic.

    Those of a transposed convolution are, except the channels: TensorRT requires it, and an export
    never makes them dynamic.

    Args:
        case: The case.
        dtype: Of all tensors.
        opset: Version of the standard ops.
        beside: Other cases that the body has to support as well.
        fixed: Make all axes of the input but the first fixed.
    """
    model = _without_body(case, dtype, opset, fixed)
    nodes = list(model.graph) + [n for c in beside for n in _without_body(c, dtype, opset).graph]
    body = function(nodes[0].op_type, nodes, opset)
    model.functions[body.identifier()] = body
    return ir.to_proto(model)


def _without_body(case: Case, dtype: torch.dtype, opset: int, fixed: bool = False) -> ir.Model:
    outputs = case.out_features if isinstance(case, DenseCase) else case.out_channels
    x, weight, bias, epsilon, alpha, *rest = full_bias(case.arguments(dtype), outputs)
    if isinstance(case, DenseCase):
        op, attributes = "YatDense", {"spherical": int(case.spherical)}
    else:
        transposed = isinstance(case, ConvTransposeCase)
        op = "YatConvTranspose" if transposed else "YatConv"
        names = ("strides", "pads", "dilations", *["output_padding"] * transposed, "group")
        attributes = dict(zip(names, rest, strict=True)) | {"kernel_shape": case.kernel}
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
    sizes: list[int | str] = [size if fixed and i else f"x{i}" for i, size in enumerate(x.shape)]
    weights = [ir.Tensor(to_numpy(t), name=n) for n, t in (("W", weight), ("B", bias))]
    if op == "YatConvTranspose":
        sizes[1] = x.shape[1]
    graph = helper.make_graph(
        [node],
        case.id,
        [helper.make_tensor_value_info("X", ONNX_TYPES[dtype], sizes)],
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
