"""Fused GPU kernels of the ops, in Triton.

Each op is a package, `dense`, `conv`, `conv_transpose` and `attention`:

    kernel.py       the Triton kernel
    launch.py       input checks, tile choice and launch from PyTorch
    weights.py      preparation of the op's weight, if it has one; does not import Triton
    variants.py     the kernels that are compiled ahead of time

`conv` also has what it shares with `conv_transpose`: channels_last.py, which packs an image into
pixels, patches.py, the products of patches and filters, and images.py, the launch. `attention` has
options.py and plan.py, the attributes and the choice of tile; and scores.py, softmax.py and
split_keys.py, the parts of its kernel. `linear_attention` has a table of arguments of its own. All
ops share:

    yat.py          the formula, and products of tiles
    load_store.py   loads and stores of tiles
    row_norms.py    squared norms of rows
    tile_size.py    tile sizes and compiler options
    device.py       properties of the GPU that the choices depend on
    arrival_counters.py    counters of programs that have finished their part of a tile
    weights.py      preparation of weights, in PyTorch; does not import Triton
    weight_cache.py prepared weights, kept until the parameters change
    weight_preparation_kernel.py    the same preparation, in Triton, for the TensorRT plugin
    register.py     the kernels as the CUDA implementation of the torch ops
    ahead_of_time/  compilation to cubin and PTX without a GPU, and the audit of the result

Arguments of the kernels
------------------------

An argument has the same meaning in every kernel. Strides are in elements. "Pointer" arguments are
to the dtype of the input unless a dtype is given. N is `out_feat_dim` (for convolutions of all
groups), K is `in_feat_dim`, M is the number of output rows: `batch_dim` or `patch_dim`.

    input_pointer           the input
    weight_pointer          the planes of the weight, see `weights.Prepared`
    <input>_pointer         the queries, keys, values or mask of YatAttention
    input_source            the input, by pointer or by tensor descriptor
    weight_source           the planes of the weight, by pointer or by tensor descriptor
    norm_pointer            float32, squared norms of rows or pixels
    key_norm_pointer        float32, squared norms of keys; if there are none, they are computed
    key_length_pointer      int32 [batch], the number of keys, or none
    column_term_pointer     float32 [N], (‖w‖² + ε) / |α|, or (1 + ε) / |α| if SPHERICAL
    column_scale_pointer    float32 [N], 1 / (‖w‖ + 1e-8); read only if SPHERICAL
    bias_pointer            float32 [N]; read only if HAS_BIAS
    output_pointer          the output
    partial_pointer         scratch memory for the results of parts, float32
    partial_sum_pointer     scratch memory for the largest exponents and the sums of parts, float32
    arrival_pointer         int32 [tiles], finished parts of each tile; zero before and after
    batch_dim               rows of the input
    patch_dim               patches: batch · output pixels; for YatConvTranspose of a phase
    in_feat_dim             features of an input row; for convolutions channels of one group
    out_feat_dim            rows of the weight; for convolutions filters of one group
    key_head_dim            heads of keys and values
    group_dim               heads of queries that share a head of keys
    query_dim               queries of a head
    key_dim                 keys of a head
    feat_dim                features of a query and a key; for other kernels of a row
    value_feat_dim          features of a value
    causal_offset           query i attends to keys up to i + this; key_dim to attend to all
    <axis>_dim              input size along depth, height or width
    out_<axis>_dim          output size
    kernel_<axis>           filter size, in taps
    <axis>_stride           pixels from one patch to the next; for YatConvTranspose output pixels
                            from one input pixel to the next
    <axis>_pad              zeros before the first pixel; for YatConvTranspose output pixels that
                            are removed there
    <axis>_dilation         pixels from one tap to the next; for YatConvTranspose output pixels
    <axis>_tap_stride       taps from one tap of a phase to the next: stride / gcd(stride, dilation)
    <tensor>_<axis>_stride  stride of a tensor along an axis
    norm_scale              1 / |α|, or 0 if α = 0; α is the scale / ln 2 for softmax
    floor                   ε / |α|, the smallest denominator; infinite if α = 0
    mask_scale              multiplier of the mask: 1 / ln 2, or 1 if there is a power
    spherical               whether vectors are divided by √(‖·‖² + epsilon); with OPTIONS only
    epsilon                 ε; with OPTIONS only
    sign                    sign of α, 1 or −1; with OPTIONS only
    power                   weights are this power of scores, or their softmax if it is 0
    negative_factor         (−1)^power, or 1 for softmax; with OPTIONS only
    start_exponent          log2 of the guard, or the least exponent if there is no guard
    start_sum               1 if there is a guard, else 0
    HAS_BIAS                whether there is a bias
    HAS_MASK                whether the mask has more than one number
    OPTIONS                 whether there may be a power, a negative sign or spherical scores
    SPLIT                   whether the keys of a tile may be in parts
    SPHERICAL               whether rows and weights are divided by their norms
    NEGATIVE                whether α < 0
    PLANES                  number of planes that add up to the weight
    PRECISION               "tf32", or "ieee" for all other products, see `yat.product`
    DESCRIPTOR              whether the sources are tensor descriptors
    EVEN                    whether `in_feat_dim` is a multiple of BLOCK_SIZE_K
    HAS_DEPTH               whether there are three spatial axes
    TRUNCATE                whether to square the values that a TF32 product reads
    BLOCK_SIZE_M            output rows per tile
    BLOCK_SIZE_N            output columns per tile; for YatAttention keys per step
    BLOCK_SIZE_K            features per step
    BLOCK_SIZE_FEAT         features of a tile of queries or keys
    BLOCK_SIZE_VALUE_FEAT   features of a tile of values
"""
