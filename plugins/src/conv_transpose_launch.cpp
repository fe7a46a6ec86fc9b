//! YatConvTranspose on a GPU: the arguments that YatConv does not have.

#include "conv_problem.h"
#include "conv_transpose.h"

#include <numeric>

namespace nmn::plugin
{

void ConvTranspose::setGeometry(
    Arguments& arguments, Problem const& problem, bool isChannelsLast) const
{
    Conv::setGeometry(arguments, problem, isChannelsLast);
    using P = Parameter;
    std::vector<int32_t> tapStrides;
    for (int32_t i = 0; i < rank(); ++i)
    {
        tapStrides.push_back(mStrides[i] / std::gcd(mStrides[i], mDilations[i]));
    }
    setAxes(arguments, {P::depth_tap_stride, P::height_tap_stride, P::width_tap_stride},
        spread(tapStrides, rank(), 1));
}

} // namespace nmn::plugin
