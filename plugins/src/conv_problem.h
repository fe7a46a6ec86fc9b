//! Sizes of a YatConv layer.
#pragma once

#include "conv.h"
#include "kernel.h"

#include <algorithm>
#include <numeric>

namespace nmn::plugin
{

//! Return the first `rank` values as the last axes; the axes before them are `otherwise`.
inline Axes spread(std::vector<int32_t> const& values, int32_t rank, int32_t otherwise)
{
    Axes axes{otherwise, otherwise, otherwise};
    std::copy_n(values.begin(), rank, axes.end() - rank);
    return axes;
}

inline int64_t volume(Axes const& axes)
{
    return std::accumulate(axes.begin(), axes.end(), int64_t{1}, multiply);
}

//! Sizes of a layer.
struct Conv::Problem
{
    int64_t batch;
    int64_t group;
    int64_t features; //!< Per group.
    int64_t filters;  //!< Per group.
    Axes size;
    Axes outSize;
    Axes kernel;

    Problem(Conv const& conv, IoDescription const& io)
        : batch(io.x().d[0]), group(conv.mGroup), features(io.x().d[1] / conv.mGroup),
          filters(io.rows() / conv.mGroup), size{1, 1, 1}, outSize{1, 1, 1},
          kernel(spread(conv.mKernelShape, conv.rank(), 1))
    {
        int32_t const first = kMOST_AXES - conv.rank();
        for (int32_t i = 0; i < conv.rank(); ++i)
        {
            int64_t const lastStart = io.x().d[2 + i] + conv.slack(i);
            size[first + i] = io.x().d[2 + i];
            outSize[first + i] = lastStart < 0 ? 0 : lastStart / conv.mStrides[i] + 1;
        }
    }

    int64_t pixels() const
    {
        return multiply(batch, volume(size));
    }

    int64_t patches() const
    {
        return multiply(batch, volume(outSize));
    }

    WeightShape weight() const
    {
        return {group * filters, features, volume(kernel)};
    }

    int64_t tiles(Kernel const& main) const
    {
        return ceilDiv(patches(), main.constant("BLOCK_SIZE_M"))
               * ceilDiv(filters, main.constant("BLOCK_SIZE_N"));
    }

    //! Whether the input and the output can be copied 16 bytes at a time.
    bool isAligned() const
    {
        // Unknown sizes are negative.
        return features > 0 && features % kALIGNMENT == 0 && filters % kALIGNMENT == 0;
    }
};

} // namespace nmn::plugin
