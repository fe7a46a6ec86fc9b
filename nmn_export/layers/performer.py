"""The performers of rotary attention: linear attention with upstream's conventions."""

import torch

from nmn_export.errors import OptionError
from nmn_export.layers.feature_maps import (
    UNIT_GUARD,
    MaclaurinFeatures,
    RadialFeatures,
    SlayFeatures,
)
from nmn_export.layers.linear_attention import LinearYatAttention
from nmn_export.layers.projections import (
    create_maclaurin_projection,
    create_radial_projection,
    create_slay_projection,
)

KINDS = ("slay", "maclaurin", "radial")


def performer(
    kind: str,
    head_dim: int,
    *,
    causal: bool,
    normalize: bool,
    epsilon: float,
    seed: int,
    device: torch.device | str | None,
    num_anchor_features: int,
    num_prf_features: int,
    num_quad_nodes: int,
    num_features: int,
    bias: float,
    nmax: int,
    sketch_m: int,
    num_radial: int,
    radial_dim: int,
) -> LinearYatAttention:
    """Return the linear attention of one kind, with random features.

    "slay" has ε in its features and its denominator, and is drawn for a kernel with ε = 1e-5. The
    other kinds are drawn for a kernel with ε, always normalize, and guard the denominator by 1e-6
    of its own sign.

    Raises:
        OptionError: The kind is unknown, or an option has a value that it cannot have.
    """
    if kind not in KINDS:
        raise OptionError(
            f"performer_kind must be one of {', '.join(KINDS)}", got=repr(kind), fix="Choose one."
        )
    if kind == "slay":
        slay = create_slay_projection(
            head_dim,
            num_anchor_features,
            num_prf_features,
            num_quad_nodes,
            seed=seed,
            device=device,
        )
        features = SlayFeatures(slay, normalize=normalize, epsilon=epsilon)
        return LinearYatAttention(features, causal=causal, epsilon=epsilon)
    if kind == "maclaurin":
        maclaurin = create_maclaurin_projection(
            head_dim, num_features, bias, epsilon, nmax, seed, device=device
        )
        return LinearYatAttention(
            MaclaurinFeatures(maclaurin),
            causal=causal,
            epsilon=UNIT_GUARD,
            signed=True,
        )
    radial = create_radial_projection(
        head_dim, sketch_m, num_radial, radial_dim, bias, epsilon, seed, device=device
    )
    return LinearYatAttention(
        RadialFeatures(radial), causal=causal, epsilon=UNIT_GUARD, signed=True
    )
