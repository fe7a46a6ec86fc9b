//! Sizes of a YatDense layer.
#pragma once

#include "io_description.h"
#include "kernel.h"
#include "weights.h"

namespace nmn::plugin
{

//! Sizes of a layer.
struct DenseProblem
{
    int64_t batch;
    int64_t features;
    int64_t outputs;

    explicit DenseProblem(IoDescription const& io)
        : batch(product(io.x(), 0, io.x().nbDims - 1)), features(io.x().d[io.x().nbDims - 1]),
          outputs(io.rows())
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
