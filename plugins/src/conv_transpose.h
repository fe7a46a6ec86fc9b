//! YatConvTranspose: YatDense over the transposed patches of an image.
#pragma once

#include "conv.h"

namespace nmn::plugin
{

//! YatConvTranspose with its attributes.
//!
//! It is a YatConv whose raw weight is [C, O / group, *K], and whose kernels compute one phase of
//! the output after the other: all pixels that are a stride apart.
class ConvTranspose final : public Conv
{
public:
    static constexpr char const* kNAME = "YatConvTranspose";

    explicit ConvTranspose(Attributes const& attributes);

    int64_t rows(IoDescription const& io) const override;
    void check(IoDescription const& io) const override;

private:
    SizeRule sizeRule(int32_t axis) const override;
    nvinfer1::IDimensionExpr const* outputChannels(
        nvinfer1::DimsExprs const& weight, nvinfer1::IExprBuilder& builder) const override;
    bool hasFeatures(nvinfer1::Dims const& weight, int64_t features) const override;
    Axes phases() const override;
    int32_t featuresFirst() const override;
    void setGeometry(
        Arguments& arguments, Problem const& problem, bool isChannelsLast) const override;

    std::vector<int32_t> mOutputPadding;
};

} // namespace nmn::plugin
