//! YatConv: YatDense over the patches of an image, in one to three dimensions.
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
class Conv final : public WeightedOp
{
public:
    static constexpr char const* kNAME = "YatConv";

    explicit Conv(Attributes const& attributes);

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

private:
    struct Problem;
    struct Scratch;

    int32_t rank() const;

    //! Padding of an axis minus the extent of a dilated filter. The input size plus this is the
    //! last position at which a patch may start.
    int64_t slack(int32_t axis) const;

    void checkRanks(int32_t x, int32_t weight, bool isPrepared) const;
    void setGeometry(Arguments& arguments, Problem const& problem, bool isChannelsLast) const;
    static void launchPixels(Loaded const& kernel, Problem const& problem, void const* input,
        Scratch const& scratch, CUstream stream);

    Scaling mScaling;
    std::vector<int32_t> mKernelShape;
    std::vector<int32_t> mStrides;
    std::vector<int32_t> mPads;
    std::vector<int32_t> mDilations;
    int32_t mGroup;
};

} // namespace nmn::plugin
