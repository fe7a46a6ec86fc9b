"""Write test cases as files for the C++ test: `python -m tests.plugins.written_cases FOLDER`."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nmn_export.kernels.conv.weights import prepare_conv
from nmn_export.kernels.dense.weights import prepare_dense
from nmn_export.kernels.weights import Prepared
from nmn_export.runtime.arrays import to_numpy
from tests.attention_enclosure import attention_bounds
from tests.cases import ATTENTION_CASES, CONV_CASES, DENSE_CASES, AttentionCase, ConvCase, DenseCase
from tests.enclosure import bounds

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
)
"""Cases with aligned features, which have faster kernels. The common cases are not aligned."""

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

Case = DenseCase | ConvCase | AttentionCase


def write_case(folder: Path, case: Case, dtype: torch.dtype, *, prepared: bool = False) -> None:
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


def _weighted_inputs(
    case: DenseCase | ConvCase, dtype: torch.dtype, prepared: bool
) -> list[Tensor]:
    x, weight, bias = case.tensors(dtype)
    bias = torch.zeros(len(weight), dtype=dtype) if bias is None else bias.expand(len(weight))
    return [x, *(_prepared(case, weight, bias) if prepared else (weight, bias))]


def _attributes(case: Case) -> list[str]:
    if isinstance(case, AttentionCase):
        numbers = [
            f"number {n} {getattr(case, n)!r}" for n in ("epsilon", "scale", "power", "guard")
        ]
        flags = [f"integers {n} {int(getattr(case, n))}" for n in ("is_causal", "spherical")]
        return ["op YatAttention", *numbers, *flags]
    numbers = [f"number epsilon {case.epsilon!r}", f"number alpha {case.alpha!r}"]
    if isinstance(case, DenseCase):
        return ["op YatDense", *numbers, f"integers spherical {int(case.spherical)}"]
    lists = {
        "kernel_shape": case.kernel,
        "strides": case.strides,
        "pads": case.pads,
        "dilations": case.dilations,
        "group": (case.group,),
    }
    listed = [f"integers {name} {' '.join(map(str, value))}" for name, value in lists.items()]
    return ["op YatConv", *numbers, *listed]


def _describe(tensor: Tensor) -> str:
    return " ".join(map(str, (NAMES[tensor.dtype], *tensor.shape)))


def _prepared(case: DenseCase | ConvCase, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Return the inputs of the prepared form that come after x."""
    epsilon, alpha, dtype = case.epsilon, case.alpha, weight.dtype
    made: Prepared
    if isinstance(case, DenseCase):
        made = prepare_dense(weight, bias, epsilon, alpha, case.spherical, dtype=dtype)
    else:
        made = prepare_conv(weight, bias, epsilon, alpha, case.group, dtype=dtype).prepared
    assert made.bias is not None
    scale = [] if made.column_scale is None else [made.column_scale]
    return [made.planes, made.column_term, made.bias, *scale]


def main(folder: Path) -> None:
    """Write every case in every dtype and form: `FOLDER/CASE/CASE-DTYPE-FORM`.

    The forms of a case have a folder of their own, because run_cases.sh runs each case in its own
    process.
    """
    attention = (*ATTENTION_CASES, *ALIGNED_ATTENTION_CASES)
    for case in (*DENSE_CASES, *CONV_CASES, *ALIGNED_CASES, *attention):
        name = f"{type(case).__name__.removesuffix('Case').lower()}-{case.id}"
        for dtype, dtype_name in NAMES.items():
            for form in ("raw",) if isinstance(case, AttentionCase) else ("raw", "prepared"):
                place = folder / name / f"{name}-{dtype_name}-{form}"
                write_case(place, case, dtype, prepared=form == "prepared")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
