#include "conv.h"

#include "conv_problem.h"
#include "log.h"

namespace nmn::plugin
{
namespace
{

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::TensorFormat;

} // namespace

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

nvinfer1::DimsExprs Conv::outputShape(nvinfer1::DimsExprs const& x,
    nvinfer1::DimsExprs const& weight, bool prepared, nvinfer1::IExprBuilder& builder) const
{
    int32_t const weightRank = prepared ? 3 : rank() + 2;
    if (x.nbDims != rank() + 2 || weight.nbDims != weightRank)
    {
        throw refusal("YatConv over ", rank(),
            " axes takes an input of [B, C, *S] and a weight of"
            " [O, C / group, *K]; got ",
            x.nbDims, " and ", weight.nbDims, " dimensions");
    }
    nvinfer1::DimsExprs y = x;
    y.d[1] = weight.d[prepared ? 1 : 0];
    for (int32_t i = 0; i < rank(); ++i)
    {
        int64_t const reach = mDilations[i] * (mKernelShape[i] - int64_t{1});
        auto const* const room = builder.operation(DimensionOperation::kSUM, *x.d[2 + i],
            *builder.constant(int64_t{mPads[i]} + mPads[rank() + i] - reach - 1));
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
    int32_t const weightRank = call.prepared ? 3 : rank() + 2;
    if (call.x.nbDims != rank() + 2 || call.weight.nbDims != weightRank)
    {
        throw refusal("YatConv over ", rank(),
            " axes takes an input of [B, C, *S] and a weight of"
            " [O, C / group, *K]; got ",
            toString(call.x), " and ", toString(call.weight));
    }
    Problem const problem(*this, call);
    int64_t const rows = call.weight.d[call.prepared ? 1 : 0];
    int64_t const stored = product(call.weight, call.prepared ? 2 : 1, weightRank);
    int64_t const wanted
        = call.prepared ? problem.weight().rowStride() : problem.features * problem.weight().taps;
    if (call.x.d[1] % mGroup != 0 || rows % mGroup != 0 || stored != wanted)
    {
        throw refusal("YatConv takes channels that its ", mGroup,
            " groups divide, and filters over those of one; got ", toString(call.x), " and ",
            toString(call.weight));
    }
    if (volume(problem.outSize) == 0)
    {
        throw refusal(
            "YatConv takes an image at least as large as a dilated filter; got ", toString(call.x));
    }
    checkReach("the input of YatConv", problem.pixels() * problem.group * problem.features);
    checkReach("the output of YatConv", problem.patches() * problem.group * problem.filters);
    checkReach("the weight of YatConv", call.planes() * problem.weight().planeStride());
}

} // namespace nmn::plugin
