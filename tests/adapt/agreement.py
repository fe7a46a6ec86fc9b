"""Comparison of two networks."""

import torch
from torch import Tensor, nn

TOLERANCE = 1e-6
"""Relative, in float32."""


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """Fail unless each output agrees, relative to itself.

    This can be asked only where float32 determines the output: where neither ⟨x, w⟩ + b nor
    ‖x − w‖² cancels. Tests choose inputs and parameters so.
    """
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=0)


def assert_same_tensors(ours: nn.Module, theirs: nn.Module) -> None:
    """Fail unless both hold the very same tensors under the same names."""
    for kind in ("named_parameters", "named_buffers"):
        held = dict(getattr(theirs, kind)(remove_duplicate=False))
        found = dict(getattr(ours, kind)(remove_duplicate=False))
        assert held.keys() == found.keys()
        assert all(found[name] is held[name] for name in held)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
