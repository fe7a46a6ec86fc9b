"""Write test cases as files for the C++ test: `python -m tests.plugins.written_cases FOLDER`."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nmn_export.kernels.conv.weights import prepare_conv
from nmn_export.kernels.conv_transpose.weights import prepare_conv_transpose
from nmn_export.kernels.dense.weights import prepare_dense
from nmn_export.kernels.weights import Prepared
from nmn_export.runtime.arrays import to_numpy
from tests.attention_enclosure import attention_bounds
from tests.cases import (
    ATTENTION_CASES,
    CONV_CASES,
    CONV_TRANSPOSE_CASES,
    DENSE_CASES,
    AttentionCase,
    ConvCase,
    ConvTransposeCase,
    DenseCase,
)
from tests.enclosure import bounds
from tests.test_architecture import stem

WeightedCase = DenseCase | ConvCase | ConvTransposeCase

PluginCase = WeightedCase | AttentionCase

OPS = {
    DenseCase: "YatDense",
    ConvCase: "YatConv",
    ConvTransposeCase: "YatConvTranspose",
    AttentionCase: "YatAttention",
}

NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}

ALIGNED_CASES = (
    DenseCase("aligned", batch=(5,), in_features=128, out_features=32),
    DenseCase("aligned-many-rows", batch=(3, 44), in_features=64, out_features=80, epsilon=0.1),
    DenseCase("aligned-near", batch=(20,), in_features=256, out_features=16, values="near"),
    DenseCase("aligned-spherical", in_features=64, out_features=32, spherical=True, alpha=0.6),
    DenseCase("aligned-negative", in_features=64, out_features=32, alpha=-1.5),
    ConvCase("channels-last", channels=32, out_channels=48, pads=(1,) * 4, strides=(2, 1)),
    ConvCase("channels-last-many", kernel=(1, 2), channels=64, out_channels=80, alpha=2**0.5),
    ConvCase("channels-last-near", channels=64, out_channels=16, kernel=(2, 1), values="near"),
    ConvCase("channels-last-odd-block", channels=48, out_channels=16, kernel=(1, 2)),
    ConvCase(
        "channels-last-group",
        channels=64,
        out_channels=32,
        kernel=(1, 3),
        group=2,
        dilations=(1, 2),
    ),
    ConvCase("channels-last-negative", channels=16, out_channels=16, alpha=-0.7),
    ConvCase("channels-last-3d", size=(3, 4, 5), kernel=(2, 3, 1), channels=16, out_channels=16),
    ConvTransposeCase(
        "channels-last",
        size=(2, 3),
        kernel=(4, 3),
        batch=1,
        channels=32,
        out_channels=48,
        strides=(2, 2),
        pads=(1,) * 4,
        output_padding=(0, 1),
    ),
    ConvTransposeCase(
        "channels-last-near",
        size=(2, 3),
        kernel=(2, 1),
        channels=64,
        out_channels=16,
        strides=(2, 1),
        values="near",
    ),
    ConvTransposeCase(
        "channels-last-group",
        size=(2, 4),
        kernel=(1, 3),
        channels=96,
        out_channels=32,
        group=2,
        strides=(1, 2),
        dilations=(1, 2),
    ),
    ConvTransposeCase(
        "channels-last-negative", channels=16, out_channels=16, strides=(1, 2), alpha=-0.7
    ),
    ConvTransposeCase(
        "pointwise-in-groups", size=(2, 3), kernel=(1, 1), channels=32, out_channels=32, group=2
    ),
    ConvTransposeCase(
        "channels-last-3d",
        size=(2, 3, 2),
        kernel=(2, 3, 1),
        channels=16,
        out_channels=16,
        strides=(2, 1, 1),
    ),
)
"""Cases with aligned features, which have faster kernels. The common cases are not aligned."""

COMMON_CASES = (*DENSE_CASES, *CONV_CASES, *CONV_TRANSPOSE_CASES)

ALIGNED_ATTENTION_CASES = (
    AttentionCase("aligned", queries=70, keys=70, features=16, heads=1, is_causal=True, batch=1),
    AttentionCase("aligned-mask", mask="heads", queries=3, keys=70, features=16),
    AttentionCase("aligned-widths", features=16, value_features=208, keys=33, batch=1),
    AttentionCase("aligned-grouped", heads=6, key_heads=2, keys=66, features=32, batch=1),
    AttentionCase("aligned-one-query", queries=1, keys=70, heads=4, key_heads=1, features=64),
    AttentionCase("aligned-spherical", spherical=True, mask="keys", keys=40, features=48, batch=1),
    AttentionCase("aligned-power", power=2.0, is_causal=True, queries=3, keys=140, features=16),
    AttentionCase("aligned-negative", scale=-0.4, queries=2, keys=130, features=32, batch=1),
)
"""The same of YatAttention, whose inputs are never prepared."""


def write_case(
    folder: Path, case: PluginCase, dtype: torch.dtype, *, prepared: bool = False
) -> None:
    """Write a case in the format of plugins/tests/case.h.

    Args:
        folder: Folder to create.
        case: The case.
        dtype: Dtype of the input and the output.
        prepared: Whether the weights are prepared, or as in ONNX.
    """
    folder.mkdir(parents=True)
    arguments = case.arguments(dtype)
    if isinstance(case, AttentionCase):
        low, exact, high = attention_bounds(dtype, case, arguments, rounds_weights=True)
        inputs = _attention_inputs(case, dtype)
    else:
        low, exact, high = bounds(dtype, case, arguments)
        inputs = _weighted_inputs(case, dtype, prepared)
    lines = [*_attributes(case), *(f"input {_describe(t)}" for t in inputs)]
    lines.append(f"output {NAMES[dtype]} {' '.join(map(str, exact.shape))}")
    (folder / "case.txt").write_text("\n".join(lines) + "\n")
    for i, tensor in enumerate(inputs):
        (folder / f"input{i}.bin").write_bytes(to_numpy(tensor.contiguous()).tobytes())
    # Outwards, so that rounding the bounds excludes nothing.
    for name, bound, outwards in (("low", low, -np.inf), ("high", high, np.inf)):
        rounded = np.nextafter(bound.numpy().astype(np.float32), np.float32(outwards))
        (folder / f"{name}.bin").write_bytes(rounded.tobytes())


def _attention_inputs(case: AttentionCase, dtype: torch.dtype) -> list[Tensor]:
    q, k, v, mask = case.tensors(dtype)
    mask = torch.zeros(1, dtype=dtype) if mask is None else mask
    return [q, k, v, mask.reshape((1,) * (4 - mask.ndim) + mask.shape)]


def _weighted_inputs(case: WeightedCase, dtype: torch.dtype, prepared: bool) -> list[Tensor]:
    x, weight, bias = case.tensors(dtype)
    outputs = case.out_features if isinstance(case, DenseCase) else case.out_channels
    bias = torch.zeros(outputs, dtype=dtype) if bias is None else bias.expand(outputs)
    return [x, *(_prepared(case, weight, bias) if prepared else (weight, bias))]


def _attributes(case: PluginCase) -> list[str]:
    lines = [f"op {OPS[type(case)]}"]
    if isinstance(case, AttentionCase):
        names = ("epsilon", "scale", "power", "guard")
        lines += [f"number {name} {getattr(case, name)!r}" for name in names]
        flags = ("is_causal", "spherical")
        return lines + [f"integers {name} {int(getattr(case, name))}" for name in flags]
    lines += [f"number epsilon {case.epsilon!r}", f"number alpha {case.alpha!r}"]
    if isinstance(case, DenseCase):
        return [*lines, f"integers spherical {int(case.spherical)}"]
    lists = {
        "kernel_shape": case.kernel,
        "strides": case.strides,
        "pads": case.pads,
        "dilations": case.dilations,
        "group": (case.group,),
    }
    if isinstance(case, ConvTransposeCase):
        lists["output_padding"] = case.output_padding
    return lines + [f"integers {name} {' '.join(map(str, v))}" for name, v in lists.items()]


def _describe(tensor: Tensor) -> str:
    return " ".join(map(str, (NAMES[tensor.dtype], *tensor.shape)))


def _prepared(case: WeightedCase, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Return the inputs of the prepared form that come after x."""
    epsilon, alpha, dtype = case.epsilon, case.alpha, weight.dtype
    made: Prepared
    if isinstance(case, DenseCase):
        made = prepare_dense(weight, bias, epsilon, alpha, case.spherical, dtype=dtype)
    else:
        prepare = prepare_conv if isinstance(case, ConvCase) else prepare_conv_transpose
        made = prepare(weight, bias, epsilon, alpha, case.group, dtype=dtype).prepared
    assert made.bias is not None
    scale = [] if made.column_scale is None else [made.column_scale]
    return [made.planes, made.column_term, made.bias, *scale]


def main(folder: Path) -> None:
    """Write every case in every dtype and form: `FOLDER/CASE/CASE-DTYPE-FORM`.

    The forms of a case have a folder of their own, because run_cases.sh runs each case in its own
    process.
    """
    for case in (*COMMON_CASES, *ALIGNED_CASES, *ATTENTION_CASES, *ALIGNED_ATTENTION_CASES):
        name = f"{stem(OPS[type(case)])}-{case.id}"
        for dtype, dtype_name in NAMES.items():
            for form in ("raw",) if isinstance(case, AttentionCase) else ("raw", "prepared"):
                place = folder / name / f"{name}-{dtype_name}-{form}"
                write_case(place, case, dtype, prepared=form == "prepared")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
