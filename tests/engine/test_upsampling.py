"""Engines of a network that upsamples, built by TensorRT-RTX."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nmn_export import build, export
from nmn_export.layers import YatConv2d, YatConvTranspose2d


class Decoder(nn.Module):
    """A ⵟ convolution, and two transposed ones that double the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = YatConv2d(16, 32, 3, padding=1)
        self.up = YatConvTranspose2d(32, 16, 4, stride=2, padding=1)
        self.last = YatConvTranspose2d(16, 3, 2, stride=2, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.conv(x)))


@pytest.fixture(scope="module")
def decoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder for images of any number and size."""
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    axes = {"x": {0: "batch", 2: "height", 3: "width"}}
    x = torch.randn(2, 16, 8, 8)
    export(Decoder().eval(), x, path, dynamic_shapes=axes, dtype="float16", check=False)
    return path


@pytest.mark.parametrize(("plugin", "layers"), [("require", 3), ("off", 0)])
def test_sizes_may_vary_with_and_without_the_plugin(
    decoder_file: Path, tmp_path: Path, plugin: str, layers: int
) -> None:
    shapes = {"x": ((1, 16, 4, 4), (2, 16, 8, 8), (4, 16, 16, 16))}
    built = build(
        decoder_file,
        tmp_path / "decoder.engine",
        shapes=shapes,
        plugin=plugin,
        compute_capabilities=[89],
    )
    record = built.record
    assert (record.plugin.layers, record.plugin.decomposed) == (layers, 3 - layers)
    assert record.layer_counts.get("PLUGIN_V3", 0) == layers
    assert ("DECONVOLUTION" in record.layer_counts) == (plugin == "off")
    assert [t.shape for t in record.outputs] == [[-1, 3, -1, -1]]
    assert (b"YatConvTranspose" in built.path.read_bytes()) == (plugin == "require")


def test_the_plugin_computes_the_size_of_the_output(tmp_path: Path) -> None:
    net, x = Decoder().eval(), torch.randn(2, 16, 5, 7)
    export(net, x, tmp_path / "m.onnx", check=False)
    built = build(
        tmp_path / "m.onnx", tmp_path / "m.engine", plugin="require", compute_capabilities=[89]
    )
    assert [tuple(t.shape) for t in built.record.outputs] == [tuple(net(x).shape)]
