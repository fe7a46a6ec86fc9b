//! Types of kernel parameters.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nmn::plugin
{

//! Rows of elements in device memory, `stride` elements apart.
struct Matrix
{
    void const* data;
    int64_t rows;
    int64_t columns;
    int64_t stride;
};

//! A parameter that takes a `Value`: a pointer, a number, or a matrix, which is passed by pointer
//! or by tensor descriptor.
template <typename Value> struct TypedParameter
{
    size_t index;
};

} // namespace nmn::plugin
