"""Transposed convolutions without the plugin: built by TensorRT-RTX from their definitions."""

from operator import attrgetter

import onnx
import pytest
import torch

from nmn_export import build, export
from nmn_export.layers import YatConvTranspose2d
from nmn_export.ops import yat_conv_transpose
from tests.cases import CONV_TRANSPOSE_CASES, ConvTransposeCase, conv_transpose_case
from tests.engine.test_parser import parse
from tests.graph.networks import one_node

__all__ = ["parse"]

OPTIONS = {"plugin": "off", "compute_capabilities": [120]}

FAR_FROM_WEIGHTS = [case for case in CONV_TRANSPOSE_CASES if case.values == "normal"]
"""The others have the same geometry as one of these."""


@pytest.mark.parametrize("case", FAR_FROM_WEIGHTS[::2], ids=attrgetter("id"))
def test_sizes_may_be_dynamic(case: ConvTransposeCase, tmp_path):
    path, x = tmp_path / "m.onnx", case.tensors()[0]
    onnx.save(one_node(case), path)
    larger = (3, case.channels, *(n + 2 for n in case.size))
    shapes = {"X": (tuple(x.shape), tuple(x.shape), larger)}
    record = build(path, tmp_path / "m.engine", shapes=shapes, **OPTIONS).record
    assert (record.plugin.layers, record.plugin.decomposed) == (0, 1)
    (y,) = record.outputs
    assert y.shape == [-1, case.out_channels, *[-1] * case.rank]


@pytest.mark.parametrize("case", FAR_FROM_WEIGHTS[1::2], ids=attrgetter("id"))
def test_the_output_has_the_size_of_the_op(case: ConvTransposeCase, tmp_path):
    path, arguments = tmp_path / "m.onnx", case.arguments(torch.float16)
    model = one_node(case, torch.float16)
    for size, n in zip(
        model.graph.input[0].type.tensor_type.shape.dim, arguments[0].shape, strict=True
    ):
        size.dim_value = n
    onnx.save(model, path)
    record = build(path, tmp_path / "m.engine", **OPTIONS).record
    (y,) = record.outputs
    assert y.shape == list(yat_conv_transpose(*arguments).shape)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("group", [1, 2])
def test_strides_groups_and_output_padding_build_in_every_rank(rank, stride, group, tmp_path):
    case = ConvTransposeCase(
        "built",
        size=(3, 4, 2)[:rank],
        kernel=(3,) * rank,
        strides=(stride,) * rank,
        output_padding=(stride - 1,) * rank,
        pads=(0,) * rank + (1,) * rank,
        group=group,
    )
    onnx.save(one_node(case), tmp_path / "m.onnx")
    shape = tuple(case.tensors()[0].shape)
    record = build(
        tmp_path / "m.onnx", tmp_path / "m.engine", shapes={"X": shape}, **OPTIONS
    ).record
    assert (record.plugin.layers, record.plugin.decomposed) == (0, 1)
    product = "CONVOLUTION" if stride == 1 else "DECONVOLUTION"
    assert record.layer_counts[product] == 2  # of the channels, and of the norms


@pytest.mark.parametrize(
    "case_id", ["plain", "upsample", "upsample-odd", "stride-3", "group", "dilations-and-strides"]
)
def test_a_definition_with_strides_is_refused_by_the_parser_itself(case_id, tmp_path, parse):
    """The parser takes 1 for the strides of a definition, so it must not accept one."""
    onnx.save(one_node(conv_transpose_case(case_id)), tmp_path / "m.onnx")
    assert parse(tmp_path / "m.onnx")[-1].startswith("refused")


def test_a_file_of_standard_ops_keeps_its_strides(tmp_path, parse):
    net = YatConvTranspose2d(4, 4, 3, stride=(2, 3), padding=1).eval()
    path = tmp_path / "m.onnx"
    export(net, torch.randn(2, 4, 5, 5), path, inline=True, check=False)
    assert parse(path)[0] == "layers 0 0"
