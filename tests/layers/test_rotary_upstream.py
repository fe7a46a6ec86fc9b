"""Rotary attention, compared with what upstream's Flax NNX layer computed.

`rotary_nnx.npz` has the results of nmn 0.3.5, which `record_rotary.py` wrote.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nmn_export.graph.fold import fold
from nmn_export.layers import RotaryYatAttention

RECORDED = np.load(Path(__file__).with_name("rotary_nnx.npz"))

CASES = sorted({name.partition("/")[0] for name in RECORDED})

EMBED, HEADS, LENGTH = 12, 2, 9


def recorded_layer(case: str) -> RotaryYatAttention:
    """Return the layer of a case with upstream's parameters."""
    options = json.loads(RECORDED[f"{case}/options"].item())
    layer = RotaryYatAttention(EMBED, HEADS, LENGTH, **options, seed=0)
    prefix = f"{case}/state/"
    state = {
        key.removeprefix(prefix).removeprefix("_perf_cache."): torch.from_numpy(RECORDED[key])
        for key in RECORDED
        if key.startswith(prefix)
    }
    state.pop("Z", None)
    ours = {}
    for name, value in state.items():
        if "freqs" in name:
            torch.testing.assert_close(getattr(layer.rotary, name), value, rtol=0, atol=1e-7)
        elif "." in name:
            own = name.replace("kernel", "weight").replace("scale", "weight")
            ours[own] = value.T if name.endswith("kernel") else value
        elif name in ("alpha", "epsilon_param"):
            ours[name] = value
        else:
            ours[f"performer.features.{name.removeprefix('perf_')}"] = value
    if layer.performer_kind == "maclaurin":  # upstream has one row less, which nothing uses
        omegas = "performer.features.omegas"
        ours[omegas] = torch.nn.functional.pad(ours[omegas], (0, 0, 0, 1))
    layer.load_state_dict(ours)
    return layer.eval()


@pytest.mark.parametrize("folded", [False, True], ids=["layer", "folded"])
@pytest.mark.parametrize("case", CASES)
def test_the_layer_computes_what_upstreams_does(case: str, folded: bool) -> None:
    layer = recorded_layer(case)
    layer = fold(layer) if folded else layer
    x, y = (torch.from_numpy(RECORDED[f"{case}/{name}"]) for name in "xy")
    mask = torch.from_numpy(RECORDED[f"{case}/mask"]) if f"{case}/mask" in RECORDED else None
    offset = int(RECORDED[f"{case}/position_offset"])
    result = layer(x, mask, position_offset=offset)
    truth = fold(layer, torch.float64)(x.double(), mask, position_offset=offset)
    # Denominators of signed features come close to zero, where upstream's result has an error too.
    error = (y - truth).abs().max().item()
    assert error < 1e-3 * truth.abs().max()
    limit = max(2e-6, 8 * error)
    torch.testing.assert_close(result.detach(), y, rtol=0, atol=limit)
