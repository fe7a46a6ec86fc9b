"""Replace the ⵟ layers of other packages by ours."""

from nmn_export.adapt.network import adapt

__all__ = ["adapt"]
