#include "sizes.h"

#include "log.h"

namespace nmn::plugin
{

std::string toString(nvinfer1::Dims const& dims)
{
    std::string text;
    for (int32_t i = 0; i < dims.nbDims; ++i)
    {
        text += (i > 0 ? "x" : "") + std::to_string(dims.d[i]);
    }
    return text.empty() ? "a scalar" : text;
}

int64_t product(nvinfer1::Dims const& dims, int32_t first, int32_t last)
{
    int64_t size = 1;
    for (int32_t i = first; i < last; ++i)
    {
        size = multiply(size, dims.d[i]);
    }
    return size;
}

void checkReach(char const* what, int64_t elements)
{
    // The offsets of a kernel continue to the end of the last tile.
    constexpr int64_t kMARGIN = 4096;
    if (elements > std::numeric_limits<int32_t>::max() - kMARGIN)
    {
        throw refusal(what, " must be smaller than 2^31 - 4096; got ", elements);
    }
}

} // namespace nmn::plugin
