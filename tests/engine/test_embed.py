"""A language model with a tied head, built by the real TensorRT-RTX."""

import pytest
import torch
from torch import Tensor, nn

from nmn_export import build, export
from nmn_export.layers import YatDense, YatEmbed, softermax
from tests.engine.conftest import CAPABILITIES


class LanguageModel(nn.Module):
    def __init__(self, spherical: bool) -> None:
        super().__init__()
        self.embed = YatEmbed(40, 64, spherical=spherical)
        self.mix = YatDense(64, 64)

    def forward(self, ids: Tensor) -> Tensor:
        return softermax(self.embed.attend(self.mix(self.embed(ids))), 2.0)


@pytest.mark.parametrize(
    ("plugin", "spherical", "dtype"),
    [("require", False, None), ("require", True, None), ("off", False, "float16")],
)
def test_attend_is_one_plugin_layer_with_dynamic_batch_and_length(
    plugin, spherical, dtype, tmp_path
):
    path = tmp_path / "model.onnx"
    ids = torch.randint(40, (2, 5))
    axes = {"ids": {0: "batch", 1: "length"}}
    export(LanguageModel(spherical).eval(), {"ids": ids}, path, dynamic_shapes=axes, dtype=dtype)
    built = build(
        path,
        tmp_path / "model.engine",
        shapes={"ids": ((1, 1), (2, 8), (4, 64))},
        plugin=plugin,
        compute_capabilities=[CAPABILITIES[0]],
    )
    record = built.record
    fused = [layer.name for layer in record.layers if layer.type == "PLUGIN_V3"]
    assert fused == (["mix", "embed.attend"] if plugin == "require" else [])
    assert record.plugin.decomposed == 2 - len(fused)
