//! Arithmetic on sizes.
#pragma once

#include "host_constants.h"

#include <NvInferRuntime.h>

#include <cstdint>
#include <limits>
#include <string>

namespace nmn::plugin
{

//! Format sizes for messages, such as 2x3x224x224.
std::string toString(nvinfer1::Dims const& dims);

//! Return a · b for sizes; on overflow, the largest number.
inline int64_t multiply(int64_t a, int64_t b)
{
    int64_t result = 0;
    return __builtin_mul_overflow(a, b, &result) ? std::numeric_limits<int64_t>::max() : result;
}

//! Return the product of the sizes [first, last), see `multiply`.
int64_t product(nvinfer1::Dims const& dims, int32_t first, int32_t last);

inline int64_t ceilDiv(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

//! Return a number of features, padded as in prepared weights.
inline int64_t align(int64_t size)
{
    return ceilDiv(size, kALIGNMENT) * kALIGNMENT;
}

//! Check that 32-bit offsets reach all elements of a tensor, or all positions on an axis.
//!
//! \throws std::invalid_argument They do not.
void checkReach(char const* what, int64_t elements);

} // namespace nmn::plugin
