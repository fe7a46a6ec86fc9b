"""`MultiHeadYatAttention` of `nmn.torch`.

Releases before 0.3.3 give NaN for a query that sees no key, and ours gives zeros, as later releases
do. They also call their projections as they are, so inputs and parameters of different dtypes fail
in them.
"""

from typing import Any

from torch import nn

from nmn_export.adapt.adapter import Adapter
from nmn_export.errors import NmnExportError
from nmn_export.layers import MultiHeadYatAttention

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def _build(m: Any) -> MultiHeadYatAttention:
    layer = MultiHeadYatAttention(
        m.embed_dim,
        m.num_heads,
        m.dropout,
        bias=m.q_proj.bias is not None,
        use_alpha=m.alpha is not None,
        constant_alpha=m._constant_alpha_value,
        normalize_qk=m._normalize_qk,
        spherical=m._spherical,
        use_out_proj=m.use_out_proj,
        epsilon=m.epsilon,
        dtype=m.compute_dtype,
        # The parameters are replaced later, so they need no memory and no random numbers.
        device="meta",
    )
    for name in _PROJECTIONS:
        ours = getattr(layer, name)
        if ours is not None:
            theirs = _plain(name, getattr(m, name))
            ours.register_parameter("weight", theirs.weight)
            ours.register_parameter("bias", theirs.bias)
    return layer


def _plain(name: str, projection: nn.Module) -> nn.Linear:
    """Return a projection, or refuse one that computes something else than a linear layer does.

    Releases from 0.3.3 on use its weight and bias only, and neither its forward nor its hooks.
    """
    hooks = projection._forward_hooks or projection._forward_pre_hooks
    if type(projection) is not nn.Linear or hooks:
        raise NmnExportError(
            "The projections of an attention must be plain linear layers",
            got=f"{name}, a {type(projection).__name__}{' with hooks' * bool(hooks)}",
            fix="Merge what was added to it into its weight and bias.",
        )
    return projection


ADAPTERS = {"MultiHeadYatAttention": Adapter(_build, ("alpha",), children=_PROJECTIONS)}
