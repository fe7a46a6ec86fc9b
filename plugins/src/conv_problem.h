//! Sizes of a layer of YatConv or YatConvTranspose.
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

//! Set the parameters for depth, height and width.
inline void setAxes(Arguments& arguments,
    std::array<TypedParameter<int32_t>, kMOST_AXES> const& parameters, Axes const& axes)
{
    for (size_t i = 0; i < axes.size(); ++i)
    {
        arguments[parameters[i]] = static_cast<int32_t>(axes[i]);
    }
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
    int64_t phases;
    int64_t phaseSize; //!< Output pixels of the largest phase.
    WeightShape weight;

    Problem(Conv const& conv, IoDescription const& io)
        : batch(io.x().d[0]), group(conv.mGroup), features(io.x().d[1] / conv.mGroup),
          filters(conv.rows(io) / conv.mGroup), size{1, 1, 1}, outSize{1, 1, 1},
          kernel(spread(conv.mKernelShape, conv.rank(), 1)), phases(volume(conv.phases())),
          phaseSize(1), weight{group * filters, features, volume(kernel), conv.featuresFirst()}
    {
        int32_t const first = kMOST_AXES - conv.rank();
        for (int32_t i = 0; i < conv.rank(); ++i)
        {
            SizeRule const rule = conv.sizeRule(i);
            int64_t const last = io.x().d[2 + i] * rule.scale + rule.offset;
            size[first + i] = io.x().d[2 + i];
            outSize[first + i] = last < 0 ? 0 : last / rule.step + 1;
            phaseSize = multiply(phaseSize, ceilDiv(outSize[first + i], conv.phases()[first + i]));
        }
    }

    int64_t pixels() const
    {
        return multiply(batch, volume(size));
    }

    //! Patches of a phase.
    int64_t phasePatches() const
    {
        return multiply(batch, phaseSize);
    }

    //! Patches of all phases.
    int64_t patches() const
    {
        return multiply(phasePatches(), phases);
    }

    int64_t tiles(Kernel const& main) const
    {
        return ceilDiv(phasePatches(), main.constant("BLOCK_SIZE_M"))
               * ceilDiv(filters, main.constant("BLOCK_SIZE_N")) * phases;
    }

    //! Whether the input and the output can be copied 16 bytes at a time.
    bool isAligned() const
    {
        // Unknown sizes are negative.
        return features > 0 && features % kALIGNMENT == 0 && filters % kALIGNMENT == 0;
    }
};

} // namespace nmn::plugin
