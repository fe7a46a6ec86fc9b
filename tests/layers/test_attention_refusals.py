import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.layers import MultiHeadYatAttention
from tests.layers.attention_layers import E, H, layer, tokens

REFUSED = [
    ({"embed_dim": 0}, "embed_dim must be a positive integer; got 0"),
    ({"num_heads": -2}, "num_heads must be a positive integer; got -2"),
    ({"num_key_heads": 0}, "num_key_heads must be a positive integer; got 0"),
    ({"num_heads": 5}, "embed_dim must be divisible by num_heads; got embed_dim=12, num_heads=5"),
    ({"num_key_heads": 2}, "num_heads must be divisible by num_key_heads; got num_heads=3"),
    ({"dropout": 1.0}, r"dropout must be a finite real number in \[0, 1\); got 1\.0\. Use 0"),
    ({"dropout": math.nan}, r"dropout must be a finite real number in \[0, 1\); got nan"),
    ({"dropout": torch.tensor(0.5)}, "dropout must be a finite real number"),
    ({"epsilon": 0.0}, r"epsilon must be positive and finite; got 0\.0\."),
    ({"constant_alpha": math.inf}, r"constant_alpha must be finite; got inf\."),
    ({"power": 0.0}, r"power must be positive and finite; got 0\.0\. Use 1, say\."),
    ({"learnable_epsilon": True, "epsilon": 1e-40}, "learnable epsilon must be representable"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda o: str(o)[:30])
def test_a_bad_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiHeadYatAttention(**{"embed_dim": E, "num_heads": H} | options)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([torch.zeros(2, 4, 7)], r"takes inputs of shape \(batch, tokens, 12\); got shape \(2, 4"),
        ([torch.zeros(4, E)], r"takes inputs of shape \(batch, tokens, 12\); got shape \(4, 12\)"),
        ([torch.zeros(2, 4, E).int()], r"takes floating-point input; got torch\.int32\. Call"),
        ([tokens(4), tokens(4, 3)], r"one batch size.*; got shapes \(2, 4, 12\), \(3, 4, 12\)"),
        ([tokens(4), tokens(4), tokens(5)], r"key and value one length; got shapes"),
    ],
)
def test_a_bad_input_is_refused(inputs: list[Tensor], message: str) -> None:
    for run in (layer(), layer().fold()):
        with pytest.raises(NmnExportError, match=message):
            run(*inputs)
