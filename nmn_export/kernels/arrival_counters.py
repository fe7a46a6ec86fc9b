"""Counters of programs that have finished their part of a tile."""

import torch
import triton
from torch import Tensor

_COUNTERS: dict[tuple[torch.device, int], Tensor] = {}


def arrival_counters(tiles: int, device: torch.device) -> Tensor:
    """Return at least `tiles` int32 zeros. The kernel counts in them and resets them to zero.

    They are kept per stream, because kernels of one stream run in order and cannot disturb each
    other. A captured CUDA graph may be replayed on any stream, so each capture gets its own.
    """
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros(tiles, device=device, dtype=torch.int32)
    key = (device, torch.cuda.current_stream(device).cuda_stream)
    counters = _COUNTERS.get(key)
    if counters is None or len(counters) < tiles:
        counters = torch.zeros(triton.next_power_of_2(tiles), device=device, dtype=torch.int32)
        _COUNTERS[key] = counters
    return counters
