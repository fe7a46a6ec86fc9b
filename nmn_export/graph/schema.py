"""The ONNX schemas of the ops, built from their specifications."""

import onnx
import onnx_ir as ir
from onnx.defs import OpSchema
from onnxscript import FLOAT, opset18
from onnxscript.values import Op, Opset

from nmn_export.ops import DOMAIN, OPS, PLUGIN_ATTRIBUTES, VERSION, OpSpec

_ATTRIBUTE_TYPES = {
    float: OpSchema.AttrType.FLOAT,
    int: OpSchema.AttrType.INT,
    tuple: OpSchema.AttrType.INTS,
    str: OpSchema.AttrType.STRING,
}


def schema(spec: OpSpec) -> OpSchema:
    """Return the schema of an op. All its tensors have one type."""
    parameters = [
        OpSchema.FormalParameter(name, "T", f"of shape {shape}")
        for name, shape in spec.inputs.items()
    ]
    attributes = [
        OpSchema.Attribute(name, _ATTRIBUTE_TYPES[spec.attribute_types[name]], required=True)
        if default is None
        else OpSchema.Attribute(name, onnx.helper.make_attribute(name, default))
        for name, default in (spec.attributes | PLUGIN_ATTRIBUTES).items()
    ]
    return OpSchema(
        spec.name,
        DOMAIN,
        VERSION,
        doc=spec.summary,
        inputs=parameters,
        outputs=[OpSchema.FormalParameter("Y", "T", "")],
        type_constraints=[
            ("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "floating point")
        ],
        attributes=attributes,
    )


def op(name: str) -> Op:
    """Return the op for use in a translation from torch.

    PyTorch's exporter needs the op's schema to make a node. The schema is passed with the op. It
    is not registered with ONNX, because the registry belongs to the whole process.
    """
    return Op(Opset(DOMAIN, VERSION), name, op_schema=schema(OPS[name]))


def is_yat(node: ir.Node) -> bool:
    """Return whether a node is a ⵟ op."""
    return node.domain == DOMAIN and node.op_type in OPS


def input_index(node: ir.Node, name: str) -> int | None:
    """Return the place of an input of a ⵟ node by its declared name; `None` if the op lacks it."""
    names = list(OPS[node.op_type].inputs)
    return names.index(name) if name in names else None


def bias_or_zero(weight: FLOAT, bias: FLOAT | None, axis: int = 0, group: int = 1) -> FLOAT:
    """Return the bias of a node, of shape [N], from that of the torch op: [N], [1] or none.

    Args:
        weight: Its size along `axis`, times `group`, is N.
        bias: The bias of the torch op.
        axis: The axis of outputs.
        group: Groups of outputs.
    """
    if bias is not None and bias.shape[0] == weight.shape[axis] * group:
        return bias
    count = opset18.Shape(weight, start=axis, end=axis + 1)
    if group > 1:
        count = opset18.Mul(count, opset18.Constant(value_ints=[group]))
    if bias is None:
        return opset18.CastLike(opset18.Expand(0.0, count), weight)
    return opset18.Expand(bias, count)
