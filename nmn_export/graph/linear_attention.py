"""Causal linear attention as standard ops, with any dynamic axes.

PyTorch would trace the eager form for the number of chunks of the example only. So the torch op is
translated here instead.
"""

from onnxscript import FLOAT
from onnxscript import opset18 as op

from nmn_export.ops.linear_attention import CHUNK


def translate(
    q_features: FLOAT, k_features: FLOAT, v: FLOAT, epsilon: float, signed: bool
) -> FLOAT:
    """Translate `nmn::causal_linear_attention` in float32; PyTorch's exporter calls this."""
    rank = len(v.shape)
    last = op.Constant(value_ints=[rank])  # with -1, ONNX Runtime does not reduce an empty batch
    chunk = op.Constant(value_ints=[CHUNK])
    length = op.Shape(v, start=rank - 2, end=rank - 1)
    count = op.Div(op.Add(length, op.Constant(value_ints=[CHUNK - 1])), chunk)
    padded = op.Mul(count, chunk)
    pads = op.Concat(op.Constant(value_ints=[0]), op.Sub(padded, length), axis=0)
    lead = op.Shape(v, start=0, end=rank - 2)

    def chunks(x: FLOAT) -> FLOAT:
        """Return [..., L, F] as [..., chunks, CHUNK, F], with zeros after the last token."""
        shape = op.Concat(lead, count, chunk, op.Shape(x, start=rank - 1), axis=0)
        return op.Reshape(op.Pad(x, pads, None, op.Constant(value_ints=[rank - 2])), shape)

    qf, kf, values = chunks(q_features), chunks(k_features), chunks(v)
    flipped = [*range(rank - 1), rank, rank - 1]
    kf_t = op.Transpose(kf, perm=flipped)  # a part of the products, as runtimes fuse it
    weights = op.Trilu(op.MatMul(qf, kf_t), upper=0)
    # An exclusive sum never has the entry of its own chunk in it, not even its rounding.
    axis = op.Constant(value_int=rank - 2)
    kv = op.CumSum(op.MatMul(kf_t, values), axis, exclusive=1)
    k_sum = op.ReduceSum(kf, op.Constant(value_ints=[rank - 1]), keepdims=1)
    k_sum = op.Transpose(op.CumSum(k_sum, axis, exclusive=1), perm=flipped)
    numerator = op.Add(op.MatMul(weights, values), op.MatMul(qf, kv))
    denominator = op.Add(op.ReduceSum(weights, last, keepdims=1), op.MatMul(qf, k_sum))
    out = op.Div(numerator, _guarded(denominator, epsilon, signed))
    out = op.Reshape(out, op.Concat(lead, padded, op.Shape(v, start=rank - 1), axis=0))
    return op.Slice(out, op.Constant(value_ints=[0]), length, op.Constant(value_ints=[rank - 2]))


def _guarded(denominator: FLOAT, epsilon: float, signed: bool) -> FLOAT:
    """Return the denominator plus ε, or minus ε if it is negative and `signed`."""
    guard = op.Constant(value_floats=[epsilon])  # a number below 1e-8 would be optimized away
    if not signed:
        return op.Add(denominator, guard)
    negative = op.Less(denominator, op.Constant(value_float=0.0))
    return op.Where(negative, op.Sub(denominator, guard), op.Add(denominator, guard))
