#include "io_description.h"

#include "log.h"

#include <algorithm>

namespace nmn::plugin
{

using nvinfer1::DataType;
using nvinfer1::Dims;

IoDescription::IoDescription(nvinfer1::PluginTensorDesc const* inputs_, int32_t nbInputs)
    : type(inputs_[0].type), channelsLast(inputs_[0].format != nvinfer1::TensorFormat::kLINEAR)
{
    std::transform(inputs_, inputs_ + nbInputs, std::back_inserter(inputs),
        [](nvinfer1::PluginTensorDesc const& input) { return input.dims; });
}

bool IoDescription::operator==(IoDescription const& other) const
{
    auto const same = [](Dims const& a, Dims const& b)
    { return a.nbDims == b.nbDims && std::equal(a.d, a.d + a.nbDims, b.d); };
    return type == other.type && channelsLast == other.channelsLast
           && std::equal(
               inputs.begin(), inputs.end(), other.inputs.begin(), other.inputs.end(), same);
}

int32_t IoDescription::planes() const
{
    if (prepared())
    {
        return static_cast<int32_t>(weight().d[0]);
    }
    return type == DataType::kFLOAT ? 3 : 1;
}

int64_t IoDescription::itemSize() const
{
    return type == DataType::kFLOAT ? 4 : 2;
}

char const* nameOf(DataType type)
{
    switch (type)
    {
    case DataType::kFLOAT:
        return "fp32";
    case DataType::kHALF:
        return "fp16";
    case DataType::kBF16:
        return "bf16";
    default:
        throw refusal("only float32, float16 and bfloat16 have kernels");
    }
}

} // namespace nmn::plugin
