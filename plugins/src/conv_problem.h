//! Sizes of a call of YatConv.
#pragma once

#include "conv.h"
#include "kernel.h"

#include <algorithm>
#include <numeric>

namespace nmn::plugin
{

//! Spread the first numbers of `values`, one for each of `rank` axes, over the last axes.
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

//! Sizes of a call.
struct Conv::Problem
{
    int64_t batch;
    int64_t group;
    int64_t features; //!< Of a group.
    int64_t filters;  //!< Of a group.
    Axes size;
    Axes outSize;
    Axes kernel;

    Problem(Conv const& conv, Call const& call)
        : batch(call.x.d[0]), group(conv.mGroup), features(call.x.d[1] / conv.mGroup),
          filters(call.rows() / conv.mGroup), size{1, 1, 1}, outSize{1, 1, 1},
          kernel(spread(conv.mKernelShape, conv.rank(), 1))
    {
        int32_t const first = kMOST_AXES - conv.rank();
        for (int32_t i = 0; i < conv.rank(); ++i)
        {
            int64_t const room = call.x.d[2 + i] + conv.slack(i);
            size[first + i] = call.x.d[2 + i];
            outSize[first + i] = room < 0 ? 0 : room / conv.mStrides[i] + 1;
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

    //! Whether 16 bytes can be copied at a time, of the input and of the output.
    bool isAligned() const
    {
        // A size that is not known yet is negative.
        return features > 0 && features % kALIGNMENT == 0 && filters % kALIGNMENT == 0;
    }
};

} // namespace nmn::plugin
