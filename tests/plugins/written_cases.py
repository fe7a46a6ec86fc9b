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
from tests.cases import CONV_CASES, DENSE_CASES, ConvCase, DenseCase
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


def write_case(
    folder: Path, case: DenseCase | ConvCase, dtype: torch.dtype, *, prepared: bool
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
    x, weight, bias = case.tensors(dtype)
    bias = torch.zeros(len(weight), dtype=dtype) if bias is None else bias.expand(len(weight))
    low, exact, high = bounds(dtype, case, arguments)
    inputs = [x, *(_prepared(case, weight, bias) if prepared else (weight, bias))]
    lines = [*_attributes(case), *(f"input {_describe(t)}" for t in inputs)]
    lines.append(f"output {NAMES[dtype]} {' '.join(map(str, exact.shape))}")
    (folder / "case.txt").write_text("\n".join(lines) + "\n")
    for i, tensor in enumerate(inputs):
        (folder / f"input{i}.bin").write_bytes(to_numpy(tensor.contiguous()).tobytes())
    # Outwards, so that rounding the bounds excludes nothing.
    for name, bound, outwards in (("low", low, -np.inf), ("high", high, np.inf)):
        rounded = np.nextafter(bound.numpy().astype(np.float32), np.float32(outwards))
        (folder / f"{name}.bin").write_bytes(rounded.tobytes())


def _attributes(case: DenseCase | ConvCase) -> list[str]:
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
    for case in (*DENSE_CASES, *CONV_CASES, *ALIGNED_CASES):
        name = f"{'dense' if isinstance(case, DenseCase) else 'conv'}-{case.id}"
        for dtype, dtype_name in NAMES.items():
            for form in ("raw", "prepared"):
                place = folder / name / f"{name}-{dtype_name}-{form}"
                write_case(place, case, dtype, prepared=form == "prepared")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
