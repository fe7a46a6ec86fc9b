#include "conv.h"

#include "conv_problem.h"
#include "log.h"

#include <algorithm>

namespace nmn::plugin
{

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::TensorFormat;

namespace
{

constexpr char const* kTOO_SMALL
    = " takes an image at least as large as its filters and pads require; got ";

} // namespace

Conv::Conv(char const* name, Attributes const& attributes)
    : WeightedOp(attributes), mName(name),
      mScaling(attributes.number("epsilon"), attributes.number("alpha")),
      mKernelShape(attributes.integers("kernel_shape")), mStrides(attributes.integers("strides")),
      mPads(attributes.integers("pads")), mDilations(attributes.integers("dilations")),
      mGroup(attributes.integer("group"))
{
    auto const least = [](std::vector<int32_t> const& values)
    { return *std::min_element(values.begin(), values.end()); };
    size_t const axes = mKernelShape.size();
    if (axes < 1 || axes > kMOST_AXES || mStrides.size() != axes || mDilations.size() != axes
        || mPads.size() != 2 * axes)
    {
        throw refusal(name,
            " takes one to three axes, with a kernel size, a stride, a dilation and two pads for"
            " each; got ",
            axes, ", ", mStrides.size(), ", ", mDilations.size(), " and ", mPads.size());
    }
    if (least(mKernelShape) < 1 || least(mStrides) < 1 || least(mDilations) < 1 || least(mPads) < 0)
    {
        throw refusal(name, " takes kernel sizes, strides and dilations of at least 1, and pads of"
                            " at least 0");
    }
    if (mGroup < 1)
    {
        throw refusal(name, " takes at least one group; got ", mGroup);
    }
    // A grid has at most this many programs along its second axis.
    constexpr int32_t kMOST_GROUPS = 65535;
    if (mGroup > kMOST_GROUPS)
    {
        throw refusal(name, " takes at most ", kMOST_GROUPS, " groups; got ", mGroup);
    }
}

int32_t Conv::rank() const
{
    return static_cast<int32_t>(mKernelShape.size());
}

int32_t Conv::nbPreparedInputs() const
{
    return kCOLUMN_BIAS + 1;
}

int64_t Conv::reach(int32_t axis) const
{
    return mDilations[axis] * (mKernelShape[axis] - int64_t{1});
}

int64_t Conv::padding(int32_t axis) const
{
    return int64_t{mPads[axis]} + mPads[rank() + axis];
}

Conv::SizeRule Conv::sizeRule(int32_t axis) const
{
    return {1, padding(axis) - reach(axis) - 1, mStrides[axis]};
}

nvinfer1::IDimensionExpr const* Conv::outputChannels(
    nvinfer1::DimsExprs const& weight, nvinfer1::IExprBuilder& /*builder*/) const
{
    return weight.d[0];
}

bool Conv::hasFeatures(nvinfer1::Dims const& weight, int64_t features) const
{
    return weight.d[1] == features;
}

Axes Conv::phases() const
{
    return {1, 1, 1};
}

int32_t Conv::featuresFirst() const
{
    return 0;
}

void Conv::checkRanks(int32_t x, int32_t weight, bool isPrepared) const
{
    if (x != rank() + 2 || weight != (isPrepared ? 3 : rank() + 2))
    {
        throw refusal(mName, " over ", rank(),
            " axes takes an input of [B, C, *S] and a weight of ", rank() + 2, " dimensions; got ",
            x, " and ", weight, " dimensions");
    }
}

nvinfer1::DimsExprs Conv::outputShape(nvinfer1::DimsExprs const& x,
    nvinfer1::DimsExprs const& weight, bool prepared, nvinfer1::IExprBuilder& builder) const
{
    checkRanks(x.nbDims, weight.nbDims, prepared);
    nvinfer1::DimsExprs y = x;
    y.d[1] = prepared ? weight.d[1] : outputChannels(weight, builder);
    for (int32_t i = 0; i < rank(); ++i)
    {
        SizeRule const rule = sizeRule(i);
        auto const* const scaled = builder.operation(
            DimensionOperation::kPROD, *x.d[2 + i], *builder.constant(rule.scale));
        auto const* const last
            = builder.operation(DimensionOperation::kSUM, *scaled, *builder.constant(rule.offset));
        if (last->isConstant() && last->getConstantValue() < 0)
        {
            throw refusal(mName, kTOO_SMALL, "axis ", i, " of ", x.d[2 + i]->getConstantValue());
        }
        auto const* const steps = builder.operation(
            DimensionOperation::kFLOOR_DIV, *last, *builder.constant(rule.step));
        y.d[2 + i] = builder.operation(DimensionOperation::kSUM, *steps, *builder.constant(1));
    }
    return y;
}

int32_t Conv::featureAxis(int32_t /*nbAxes*/) const
{
    return 1;
}

bool Conv::wantsChannelsLast(IoDescription const& io) const
{
    return rank() > 1 && Problem(*this, io).isAligned();
}

TensorFormat Conv::channelsLastFormat(DataType type) const
{
    // 16-bit types have vectors of eight channels. Aligned channels need no padding for that.
    bool const isWide = type == DataType::kFLOAT;
    switch (rank())
    {
    case 2:
        return isWide ? TensorFormat::kHWC : TensorFormat::kHWC8;
    case 3:
        return isWide ? TensorFormat::kDHWC : TensorFormat::kDHWC8;
    default:
        return TensorFormat::kLINEAR;
    }
}

void Conv::check(IoDescription const& io) const
{
    checkRanks(io.x().nbDims, io.weight().nbDims, io.prepared());
    Problem const problem(*this, io);
    bool fits = io.x().d[1] % mGroup == 0 && rows(io) % mGroup == 0;
    if (io.prepared())
    {
        fits = fits && io.weight().d[2] == problem.weight.rowStride();
    }
    else
    {
        fits = fits && hasFeatures(io.weight(), problem.features)
               && std::equal(mKernelShape.begin(), mKernelShape.end(), io.weight().d + 2);
    }
    if (!fits || problem.features < 1 || problem.filters < 1)
    {
        throw refusal(mName, " takes channels that its ", mGroup,
            " groups divide, and filters over those of one, of its kernel's shape; got ",
            toString(io.x()), " and ", toString(io.weight()));
    }
    if (io.channelsLast && !wantsChannelsLast(io))
    {
        throw refusal(mName,
            " takes channels last if the channels of a group are a multiple of 16; got ",
            toString(io.x()), " and ", toString(io.weight()));
    }
    if (volume(problem.outSize) == 0)
    {
        throw refusal(mName, kTOO_SMALL, toString(io.x()));
    }
    std::string const of = std::string(" of ") + mName;
    int64_t const channels = problem.group * problem.features;
    checkReach(("the input" + of).c_str(), multiply(problem.pixels(), channels));
    checkReach(("the output" + of).c_str(), multiply(problem.patches(), rows(io)));
    checkReach(("the weight" + of).c_str(), multiply(io.planes(), problem.weight.planeStride()));
    for (int32_t i = 0; i < rank(); ++i)
    {
        int64_t const size = std::max(
            problem.size[kMOST_AXES - rank() + i], problem.outSize[kMOST_AXES - rank() + i]);
        checkReach(("an axis" + of + " with its pads").c_str(), size + padding(i));
    }
}

} // namespace nmn::plugin
