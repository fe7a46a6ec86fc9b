//! Default attributes and tensors of the tests.
#pragma once

#include "plugin_host.h"

namespace nmn::plugin::test
{

using Sizes = std::vector<int64_t>;

inline Fields denseFields(float epsilon = 1e-3F, float alpha = 1.F, int32_t spherical = 0)
{
    Fields fields;
    fields.number("epsilon", epsilon).number("alpha", alpha).integers("spherical", {spherical});
    return fields;
}

inline Fields convFields(std::vector<int32_t> kernel = {3, 3},
    std::vector<int32_t> strides = {2, 1}, std::vector<int32_t> pads = {1, 0, 1, 2},
    std::vector<int32_t> dilations = {1, 2}, int32_t group = 1)
{
    Fields fields;
    fields.number("epsilon", 1e-3F).number("alpha", 1.F).integers("kernel_shape", kernel);
    fields.integers("strides", strides).integers("pads", pads);
    fields.integers("dilations", dilations).integers("group", {group});
    return fields;
}

inline Fields convTransposeFields(std::vector<int32_t> kernel = {4, 4},
    std::vector<int32_t> strides = {2, 2}, std::vector<int32_t> pads = {1, 1, 1, 1},
    std::vector<int32_t> dilations = {1, 1}, std::vector<int32_t> outputPadding = {0, 0},
    int32_t group = 1)
{
    Fields fields = convFields(kernel, strides, pads, dilations, group);
    fields.integers("output_padding", outputPadding);
    return fields;
}

inline Fields attentionFields(int32_t isCausal = 0, int32_t spherical = 0, float power = 0.F,
    float scale = 0.3F, float epsilon = 1e-3F, float guard = 1e-12F)
{
    Fields fields;
    fields.number("epsilon", epsilon).number("scale", scale).number("power", power);
    fields.number("guard", guard).integers("is_causal", {isCausal});
    fields.integers("spherical", {spherical});
    return fields;
}

inline std::vector<Tensor> attention(
    nvinfer1::DataType type, Sizes const& q, Sizes const& k, Sizes const& mask = {1, 1, 1, 1})
{
    return {{type, q}, {type, k}, {type, k}, {type, mask}};
}

inline std::vector<Tensor> raw(nvinfer1::DataType type, Sizes const& x, Sizes const& weight)
{
    return {{type, x}, {type, weight}, {type, {weight[0]}}};
}

//! The inputs of YatConvTranspose, whose weight is [C, O / group, *K].
inline std::vector<Tensor> rawTransposed(
    nvinfer1::DataType type, Sizes const& x, Sizes const& weight, int64_t group = 1)
{
    return {{type, x}, {type, weight}, {type, {weight[1] * group}}};
}

} // namespace nmn::plugin::test
