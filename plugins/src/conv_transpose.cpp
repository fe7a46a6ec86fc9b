#include "conv_transpose.h"

#include "conv_problem.h"
#include "log.h"

#include <algorithm>

namespace nmn::plugin
{

ConvTranspose::ConvTranspose(Attributes const& attributes)
    : Conv(kNAME, attributes), mOutputPadding(attributes.integers("output_padding"))
{
    auto const isNegative = [](int32_t value) { return value < 0; };
    if (mOutputPadding.size() != mStrides.size()
        || std::any_of(mOutputPadding.begin(), mOutputPadding.end(), isNegative))
    {
        throw refusal(kNAME, " takes an output padding of at least 0 for each of its ", rank(),
            " axes; got ", mOutputPadding.size());
    }
}

int64_t ConvTranspose::rows(IoDescription const& io) const
{
    return io.prepared() ? io.weight().d[1] : multiply(io.weight().d[1], mGroup);
}

Conv::SizeRule ConvTranspose::sizeRule(int32_t axis) const
{
    int64_t const stride = mStrides[axis];
    return {stride, reach(axis) + mOutputPadding[axis] - padding(axis) - stride, 1};
}

nvinfer1::IDimensionExpr const* ConvTranspose::outputChannels(
    nvinfer1::DimsExprs const& weight, nvinfer1::IExprBuilder& builder) const
{
    return builder.operation(
        nvinfer1::DimensionOperation::kPROD, *weight.d[1], *builder.constant(mGroup));
}

bool ConvTranspose::hasFeatures(nvinfer1::Dims const& weight, int64_t features) const
{
    return weight.d[0] == features * mGroup;
}

Axes ConvTranspose::phases() const
{
    return spread(mStrides, rank(), 1);
}

int32_t ConvTranspose::featuresFirst() const
{
    return mGroup;
}

void ConvTranspose::check(IoDescription const& io) const
{
    Conv::check(io);
    for (int32_t i = 0; i < rank(); ++i)
    {
        checkReach("stride · dilation of YatConvTranspose", multiply(mStrides[i], mDilations[i]));
    }
}

} // namespace nmn::plugin
