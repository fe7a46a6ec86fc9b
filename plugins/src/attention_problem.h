//! Sizes of a YatAttention layer.
#pragma once

#include "io_description.h"
#include "kernel.h"
#include "sizes.h"

namespace nmn::plugin
{

//! Inputs of the op.
enum AttentionInput : int32_t
{
    kQUERIES = 0,
    kKEYS = 1,
    kVALUES = 2,
    kMASK = 3,
    kNB_ATTENTION_INPUTS = 4,
};

//! Sizes of a layer.
struct AttentionProblem
{
    int64_t batch;
    int64_t keyHeads;
    int64_t group; //!< Heads of queries per head of keys.
    int64_t queries;
    int64_t keys;
    int64_t features;
    int64_t valueFeatures;
    nvinfer1::Dims mask;

    explicit AttentionProblem(IoDescription const& io)
        : batch(io.inputs[kQUERIES].d[0]), keyHeads(io.inputs[kKEYS].d[1]),
          group(io.inputs[kQUERIES].d[1] / keyHeads), queries(io.inputs[kQUERIES].d[2]),
          keys(io.inputs[kKEYS].d[2]), features(io.inputs[kQUERIES].d[3]),
          valueFeatures(io.inputs[kVALUES].d[3]), mask(io.inputs[kMASK])
    {
    }

    int64_t heads() const
    {
        return keyHeads * group;
    }

    //! Tiles of queries: the heads that share keys are rows of one tile.
    int64_t tiles(Kernel const& kernel) const
    {
        int64_t const rows = multiply(queries, group);
        return multiply(multiply(batch, keyHeads), ceilDiv(rows, kernel.constant("BLOCK_SIZE_M")));
    }

    //! Elements of the mask from one to the next along an axis; 0 if it has one for the whole axis.
    int32_t maskStride(int32_t axis) const
    {
        return mask.d[axis] == 1 ? 0 : static_cast<int32_t>(product(mask, axis + 1, mask.nbDims));
    }
};

} // namespace nmn::plugin
