//! Types, formats and sizes of the inputs and the output of a layer.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <vector>

namespace nmn::plugin
{

//! Inputs of an op with a weight in its two forms: as in ONNX (X, W, B), or with weights that were
//! prepared when the engine was built (X, planes, column terms, bias and, if spherical, column
//! scales).
enum Input : int32_t
{
    kX = 0,
    kWEIGHT = 1,
    kBIAS = 2,
    kPLANES = 1,
    kCOLUMN_TERM = 2,
    kCOLUMN_BIAS = 3,
    kCOLUMN_SCALE = 4,
};

constexpr int32_t kNB_RAW_INPUTS = 3;

//! The tensors of a layer that kernels are chosen for.
struct IoDescription
{
    nvinfer1::DataType type;            //!< Of the first input and the output.
    bool channelsLast;                  //!< Whether the first input and the output are.
    std::vector<nvinfer1::Dims> inputs; //!< Sizes of the inputs.

    IoDescription(nvinfer1::PluginTensorDesc const* inputs, int32_t nbInputs);

    bool operator==(IoDescription const& other) const;

    //! Sizes of the first input.
    nvinfer1::Dims const& x() const
    {
        return inputs[kX];
    }

    //! Bytes of one element of the first input.
    int64_t itemSize() const;

    // The following are those of an op with a weight.

    //! Whether the weights are prepared.
    bool prepared() const
    {
        return inputs.size() > kNB_RAW_INPUTS;
    }

    //! Sizes of the weight, or of its planes.
    nvinfer1::Dims const& weight() const
    {
        return inputs[kWEIGHT];
    }

    //! Rows of the weight.
    int64_t rows() const
    {
        return weight().d[prepared() ? 1 : 0];
    }

    //! Number of planes that add up to the weight: 2 or 3 of bfloat16 for float32, else 1.
    int32_t planes() const;
};

//! Return the name of a type in the names of kernels.
char const* nameOf(nvinfer1::DataType type);

} // namespace nmn::plugin
