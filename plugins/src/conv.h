//! YatConv: YatDense over the patches of an image, in one to three dimensions; the base of
//! YatConvTranspose.
#pragma once

#include "scaling.h"
#include "weighted_op.h"
#include "weights.h"

#include <array>

namespace nmn::plugin
{

//! One number each for depth, height and width; a neutral 1 or 0 for axes that an image lacks.
constexpr int32_t kMOST_AXES = 3;
using Axes = std::array<int64_t, kMOST_AXES>;

//! YatConv with its attributes.
//!
//! The input is [B, C, *S]. The weight is [O, C / group, *K], or as planes [P, O, taps · C'], C'
//! being C / group padded to a multiple of 16. The output is [B, O, *S'].
class Conv : public WeightedOp
{
public:
    static constexpr char const* kNAME = "YatConv";

    explicit Conv(Attributes const& attributes) : Conv(kNAME, attributes) {}

    int32_t nbPreparedInputs() const override;
    using WeightedOp::outputShape;
    nvinfer1::DimsExprs outputShape(nvinfer1::DimsExprs const& x, nvinfer1::DimsExprs const& weight,
        bool prepared, nvinfer1::IExprBuilder& builder) const override;
    int32_t featureAxis(int32_t nbAxes) const override;
    bool wantsChannelsLast(IoDescription const& io) const override;
    nvinfer1::TensorFormat channelsLastFormat(nvinfer1::DataType type) const override;
    void check(IoDescription const& io) const override;
    bool takes(Kernel const& kernel, IoDescription const& io) const override;
    Kernel const& choose(std::vector<Kernel const*> const& candidates, IoDescription const& io,
        int32_t processors) const override;
    Steps steps(Kernel const& main, IoDescription const& io) const override;
    size_t workspaceSize(Kernel const& main, IoDescription const& io) const override;
    void enqueue(IoDescription const& io, LoadedSteps const& steps, int32_t processors,
        void const* const* inputs, void* output, void* workspace, CUstream stream) const override;

protected:
    struct Problem;

    //! The size of an axis of the output is floor((size · scale + offset) / step) + 1, in which
    //! size is that of the input; none if size · scale + offset is negative.
    struct SizeRule
    {
        int64_t scale;
        int64_t offset;
        int64_t step;
    };

    //! \param name Name of the op, which is part of messages and must outlive this object.
    Conv(char const* name, Attributes const& attributes);

    virtual SizeRule sizeRule(int32_t axis) const;

    //! Channels of the output, from the sizes of a raw weight.
    virtual nvinfer1::IDimensionExpr const* outputChannels(
        nvinfer1::DimsExprs const& weight, nvinfer1::IExprBuilder& builder) const;

    //! Whether a raw weight is for this number of features per group.
    virtual bool hasFeatures(nvinfer1::Dims const& weight, int64_t features) const;

    //! Number of phases of each axis. A phase is a part of the output with its own programs.
    virtual Axes phases() const;

    //! Number of groups if a raw weight holds the features of a group before its filters, else 0.
    virtual int32_t featuresFirst() const;

    //! Set the arguments that locate patches in the input and results in the output.
    virtual void setGeometry(
        Arguments& arguments, Problem const& problem, bool isChannelsLast) const;

    int32_t rank() const;

    //! Pixels between the first and the last tap of a filter.
    int64_t reach(int32_t axis) const;

    //! Pads of an axis, before and after it.
    int64_t padding(int32_t axis) const;

    char const* mName;
    Scaling mScaling;
    std::vector<int32_t> mKernelShape;
    std::vector<int32_t> mStrides;
    std::vector<int32_t> mPads;
    std::vector<int32_t> mDilations;
    int32_t mGroup;

private:
    struct Scratch;

    void checkRanks(int32_t x, int32_t weight, bool isPrepared) const;
    static void launchPixels(Loaded const& kernel, Problem const& problem, void const* input,
        Scratch const& scratch, CUstream stream);
};

} // namespace nmn::plugin
