"""Fused GPU kernels of the ops, in Triton.

Each op is a package, `dense` and `conv`:

    kernel.py       the Triton kernel
    launch.py       input checks, tile choice and launch from PyTorch
    weights.py      preparation of the op's weight; does not import Triton
    variants.py     the kernels that are compiled ahead of time

`conv` also has channels_last.py, which packs an image into pixels. `linear_attention` has no weight
but a table of arguments of its own. The ops share:

    yat.py          the formula, and products of tiles
    load_store.py   loads and stores of tiles
    row_norms.py    squared norms of rows
    tile_size.py    tile sizes and compiler options
    device.py       properties of the GPU that the choices depend on
    weights.py      preparation of weights, in PyTorch; does not import Triton
    weight_cache.py prepared weights, kept until the parameters change
    weight_preparation_kernel.py    the same preparation, in Triton, for the TensorRT plugin
    register.py     the kernels as the CUDA implementation of the torch ops
    ahead_of_time/  compilation to cubin and PTX without a GPU, and the audit of the result

Arguments of the kernels
------------------------

An argument has the same meaning in every kernel. Strides are in elements. "Pointer" arguments are
to the dtype of the input unless a dtype is given. N is `out_feat_dim` (for YatConv of all groups),
K is `in_feat_dim`, M is the number of output rows: `batch_dim` or `patch_dim`.

    input_pointer           the input
    weight_pointer          the planes of the weight, see `weights.Prepared`
    input_source            the input, by pointer or by tensor descriptor
    weight_source           the planes of the weight, by pointer or by tensor descriptor
    norm_pointer            float32, squared norms of rows or pixels
    column_term_pointer     float32 [N], (‖w‖² + ε) / |α|, or (1 + ε) / |α| if SPHERICAL
    column_scale_pointer    float32 [N], 1 / (‖w‖ + 1e-8); read only if SPHERICAL
    bias_pointer            float32 [N]; read only if HAS_BIAS
    output_pointer          the output
    batch_dim               rows of the input
    patch_dim               patches: batch · output pixels
    in_feat_dim             features of an input row; for YatConv channels of one group
    out_feat_dim            rows of the weight; for YatConv filters of one group
    <axis>_dim              input size along depth, height or width
    out_<axis>_dim          output size
    kernel_<axis>           filter size, in taps
    <axis>_stride           pixels from one patch to the next
    <axis>_pad              zeros before the first pixel
    <axis>_dilation         pixels from one tap to the next
    <tensor>_<axis>_stride  stride of a tensor along an axis
    norm_scale              1 / |α|, or 0 if α = 0
    floor                   ε / |α|, the smallest denominator; infinite if α = 0
    HAS_BIAS                whether there is a bias
    SPHERICAL               whether rows and weights are divided by their norms
    NEGATIVE                whether α < 0
    PLANES                  number of planes that add up to the weight
    PRECISION               "tf32", or "ieee" for all other products, see `yat.product`
    DESCRIPTOR              whether the sources are tensor descriptors
    EVEN                    whether `in_feat_dim` is a multiple of BLOCK_SIZE_K
    HAS_DEPTH               whether there are three spatial axes
    TRUNCATE                whether to square the values that a TF32 product reads
    BLOCK_SIZE_M            output rows per tile
    BLOCK_SIZE_N            output columns per tile
    BLOCK_SIZE_K            features per step
"""
