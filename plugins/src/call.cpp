#include "call.h"

#include "log.h"

#include <algorithm>
#include <limits>

namespace nmn::plugin
{

using nvinfer1::DataType;
using nvinfer1::Dims;

Call::Call(
    nvinfer1::PluginTensorDesc const* inputs, int32_t nbInputs, Dims const& x_, Dims const& weight_)
    : type(inputs[kX].type), channelsLast(inputs[kX].format != nvinfer1::TensorFormat::kLINEAR),
      prepared(nbInputs > kNB_RAW_INPUTS), x(x_), weight(weight_)
{
}

bool Call::operator==(Call const& other) const
{
    auto const same = [](Dims const& a, Dims const& b)
    { return a.nbDims == b.nbDims && std::equal(a.d, a.d + a.nbDims, b.d); };
    return type == other.type && channelsLast == other.channelsLast && prepared == other.prepared
           && same(x, other.x) && same(weight, other.weight);
}

int32_t Call::planes() const
{
    if (prepared)
    {
        return static_cast<int32_t>(weight.d[0]);
    }
    return type == DataType::kFLOAT ? 3 : 1;
}

int64_t Call::itemSize() const
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
        throw refusal("there are kernels for float32, float16 and bfloat16 only");
    }
}

std::string toString(Dims const& dims)
{
    std::string text;
    for (int32_t i = 0; i < dims.nbDims; ++i)
    {
        text += (i > 0 ? "x" : "") + std::to_string(dims.d[i]);
    }
    return text.empty() ? "a scalar" : text;
}

int64_t product(Dims const& dims, int32_t first, int32_t last)
{
    int64_t size = 1;
    for (int32_t i = first; i < last; ++i)
    {
        size = multiply(size, dims.d[i]);
    }
    return size;
}

Workspace::Workspace(void* base) : mBase(static_cast<char*>(base))
{
    if (base == nullptr)
    {
        throw refusal("TensorRT must give the scratch memory that it was asked for; got none");
    }
}

void checkReach(char const* what, int64_t elements)
{
    // Kernels count on to the end of a tile.
    constexpr int64_t kMARGIN = 4096;
    if (elements > std::numeric_limits<int32_t>::max() - kMARGIN)
    {
        throw refusal(what, " must be smaller than 2^31 - 4096; got ", elements);
    }
}

} // namespace nmn::plugin
