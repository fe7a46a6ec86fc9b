"""The fused GPU kernels, registered as what `nmn::` ops do on CUDA when this is imported."""

from nmn_export.kernels.register import register

register()
