"""Other people's ⵟ networks as networks of our layers."""

from nmn_export.adapt.network import adapt

__all__ = ["adapt"]
