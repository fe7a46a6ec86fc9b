//! A test case: an op with inputs and bounds of its output, read from files.
#pragma once

#include "plugin_host.h"

#include <string>
#include <vector>

namespace nmn::plugin::test
{

//! A test case.
//!
//! Its folder has a file case.txt, with lines such as
//!
//!     op YatConv
//!     number epsilon 0.001
//!     integers strides 1 1
//!     input fp16 2 16 8 8
//!     output fp16 2 32 8 8
//!
//! The inputs are input0.bin and so on, channels first. low.bin and high.bin, float32, are bounds
//! of every element of the output.
struct Case
{
    std::string name;
    std::string op;
    Fields fields;
    std::vector<Tensor> inputs;
    std::vector<std::vector<char>> contents;
    Tensor output{};
    std::vector<float> low;
    std::vector<float> high;

    //! \throws std::runtime_error A file is missing or invalid.
    explicit Case(std::string const& folder);
};

size_t bytesOf(nvinfer1::DataType type);

//! Elements of a tensor.
int64_t countOf(Tensor const& tensor);

//! Convert a tensor from channels first to channels last, or back.
std::vector<char> toChannelsLast(Tensor const& tensor, std::vector<char> const& content);
std::vector<char> toChannelsFirst(Tensor const& tensor, std::vector<char> const& content);

//! Widen the elements of a tensor.
std::vector<float> toFloat(nvinfer1::DataType type, std::vector<char> const& content);

} // namespace nmn::plugin::test
