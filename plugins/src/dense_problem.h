//! Sizes of a call of YatDense.
#pragma once

#include "call.h"
#include "kernel.h"
#include "weights.h"

namespace nmn::plugin
{

//! Sizes of a call.
struct DenseProblem
{
    int64_t batch;
    int64_t features;
    int64_t outputs;

    explicit DenseProblem(Call const& call)
        : batch(product(call.x, 0, call.x.nbDims - 1)), features(call.x.d[call.x.nbDims - 1]),
          outputs(call.rows())
    {
    }

    WeightShape weight() const
    {
        return {outputs, features, 1};
    }

    int64_t rowBlocks(Kernel const& kernel) const
    {
        return ceilDiv(batch, kernel.constant("BLOCK_SIZE_M"));
    }

    int64_t tiles(Kernel const& kernel) const
    {
        return rowBlocks(kernel) * ceilDiv(outputs, kernel.constant("BLOCK_SIZE_N"));
    }
};

} // namespace nmn::plugin
