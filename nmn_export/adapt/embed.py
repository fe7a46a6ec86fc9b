"""`YatEmbed` of `nmn.torch`."""

from typing import Any

from nmn_export.adapt.adapter import Adapter
from nmn_export.layers import YatEmbed


def _build(m: Any) -> YatEmbed:
    return YatEmbed(
        m.num_embeddings,
        m.features,
        use_alpha=m.alpha is not None,
        constant_alpha=m._constant_alpha_value,
        epsilon=m.epsilon,
        spherical=m.spherical,
        device="meta",
    )


ADAPTERS = {"YatEmbed": Adapter(_build, ("embedding", "alpha"))}
