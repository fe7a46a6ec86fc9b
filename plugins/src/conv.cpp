#include "conv.h"

#include "conv_problem.h"
#include "log.h"

#include <algorithm>

namespace nmn::plugin
{

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::TensorFormat;

std::vector<nvinfer1::PluginField> Conv::attributes()
{
    using nvinfer1::PluginFieldType;
    return {
        {"epsilon", nullptr, PluginFieldType::kFLOAT32, 1},
        {"alpha", nullptr, PluginFieldType::kFLOAT32, 1},
        {"kernel_shape", nullptr, PluginFieldType::kINT32, kMOST_AXES},
        {"strides", nullptr, PluginFieldType::kINT32, kMOST_AXES},
        {"pads", nullptr, PluginFieldType::kINT32, 2 * kMOST_AXES},
        {"dilations", nullptr, PluginFieldType::kINT32, kMOST_AXES},
        {"group", nullptr, PluginFieldType::kINT32, 1},
    };
}

Conv::Conv(FieldReader const& fields)
    : mScaling(fields.number("epsilon", 1e-5F), fields.number("alpha", 1.F)),
      mKernelShape(fields.integers("kernel_shape")), mStrides(fields.integers("strides")),
      mPads(fields.integers("pads")), mDilations(fields.integers("dilations")),
      mGroup(fields.integer("group", 1))
{
    auto const least = [](std::vector<int32_t> const& values)
    { return *std::min_element(values.begin(), values.end()); };
    size_t const axes = mKernelShape.size();
    if (axes < 1 || axes > kMOST_AXES || mStrides.size() != axes || mDilations.size() != axes
        || mPads.size() != 2 * axes)
    {
        throw refusal(
            "YatConv takes one to three axes, with a kernel size, a stride, a dilation and"
            " two pads for each; got ",
            axes, ", ", mStrides.size(), ", ", mDilations.size(), " and ", mPads.size());
    }
    if (least(mKernelShape) < 1 || least(mStrides) < 1 || least(mDilations) < 1 || least(mPads) < 0)
    {
        throw refusal("YatConv takes kernel sizes, strides and dilations of at least 1, and pads of"
                      " at least 0");
    }
    if (mGroup < 1)
    {
        throw refusal("YatConv takes at least one group; got ", mGroup);
    }
    // Of programs along the second axis of a grid there are no more.
    constexpr int32_t kMOST_GROUPS = 65535;
    if (mGroup > kMOST_GROUPS)
    {
        throw refusal("YatConv takes at most ", kMOST_GROUPS, " groups; got ", mGroup);
    }
}

int32_t Conv::rank() const
{
    return static_cast<int32_t>(mKernelShape.size());
}

void Conv::write(FieldWriter& fields) const
{
    fields.add("epsilon", mScaling.epsilon);
    fields.add("alpha", mScaling.alpha);
    fields.add("kernel_shape", mKernelShape);
    fields.add("strides", mStrides);
    fields.add("pads", mPads);
    fields.add("dilations", mDilations);
    fields.add("group", std::vector<int32_t>{mGroup});
}

int32_t Conv::nbPreparedInputs() const
{
    return kCOLUMN_BIAS + 1;
}

int64_t Conv::slack(int32_t axis) const
{
    int64_t const reach = mDilations[axis] * (mKernelShape[axis] - int64_t{1}) + 1;
    return int64_t{mPads[axis]} + mPads[rank() + axis] - reach;
}

void Conv::checkRanks(int32_t x, int32_t weight, bool isPrepared) const
{
    if (x != rank() + 2 || weight != (isPrepared ? 3 : rank() + 2))
    {
        throw refusal("YatConv over ", rank(),
            " axes takes an input of [B, C, *S] and a weight of "
            "[O, C / group, *K]; got ",
            x, " and ", weight, " dimensions");
    }
}

nvinfer1::DimsExprs Conv::outputShape(nvinfer1::DimsExprs const& x,
    nvinfer1::DimsExprs const& weight, bool prepared, nvinfer1::IExprBuilder& builder) const
{
    checkRanks(x.nbDims, weight.nbDims, prepared);
    nvinfer1::DimsExprs y = x;
    y.d[1] = weight.d[prepared ? 1 : 0];
    for (int32_t i = 0; i < rank(); ++i)
    {
        auto const* const room
            = builder.operation(DimensionOperation::kSUM, *x.d[2 + i], *builder.constant(slack(i)));
        if (room->isConstant() && room->getConstantValue() < 0)
        {
            throw refusal("YatConv takes an image at least as large as a dilated filter; got axis ",
                i, " of ", x.d[2 + i]->getConstantValue());
        }
        auto const* const steps = builder.operation(
            DimensionOperation::kFLOOR_DIV, *room, *builder.constant(mStrides[i]));
        y.d[2 + i] = builder.operation(DimensionOperation::kSUM, *steps, *builder.constant(1));
    }
    return y;
}

int32_t Conv::featureAxis(nvinfer1::Dims const& /*x*/) const
{
    return 1;
}

bool Conv::wantsChannelsLast(Call const& call) const
{
    return rank() > 1 && Problem(*this, call).isAligned();
}

TensorFormat Conv::channelsLastFormat(DataType type) const
{
    // In vectors of eight for 16-bit types, which is no padding for channels that are aligned.
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

void Conv::check(Call const& call) const
{
    checkRanks(call.x.nbDims, call.weight.nbDims, call.prepared);
    Problem const problem(*this, call);
    bool fits = call.x.d[1] % mGroup == 0 && call.rows() % mGroup == 0;
    if (call.prepared)
    {
        fits = fits && call.weight.d[2] == problem.weight().rowStride();
    }
    else
    {
        fits = fits && call.weight.d[1] == problem.features
               && std::equal(mKernelShape.begin(), mKernelShape.end(), call.weight.d + 2);
    }
    if (!fits || problem.features < 1 || problem.filters < 1)
    {
        throw refusal("YatConv takes channels that its ", mGroup,
            " groups divide, and filters over those of one, of its kernel's shape; got ",
            toString(call.x), " and ", toString(call.weight));
    }
    if (call.channelsLast && !wantsChannelsLast(call))
    {
        throw refusal("YatConv takes channels last if 16 divides those of a group; got ",
            toString(call.x), " and ", toString(call.weight));
    }
    if (volume(problem.outSize) == 0)
    {
        throw refusal(
            "YatConv takes an image at least as large as a dilated filter; got ", toString(call.x));
    }
    int64_t const channels = problem.group * problem.features;
    checkReach("the input of YatConv", multiply(problem.pixels(), channels));
    checkReach("the output of YatConv", multiply(problem.patches(), call.rows()));
    checkReach("the weight of YatConv", multiply(call.planes(), problem.weight().planeStride()));
    for (int32_t i = 0; i < rank(); ++i)
    {
        checkReach("an axis of YatConv with its pads",
            call.x.d[2 + i] + mPads[i] + int64_t{mPads[rank() + i]});
    }
}

} // namespace nmn::plugin
