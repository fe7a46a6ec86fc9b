"""The fused GPU kernels; `register` makes them what `nmn::` ops do on CUDA."""
