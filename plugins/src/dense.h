//! YatDense: y = α (⟨x, w⟩ + b)² / (max(‖x‖² + ‖w‖² − 2⟨x, w⟩, 0) + ε) for every row of the input.
#pragma once

#include "scaling.h"
#include "weighted_op.h"
#include "weights.h"

namespace nmn::plugin
{

//! YatDense with its attributes.
//!
//! The input is [..., K]. The weight is [N, K], or as planes [P, N, K'], K' being K padded to a
//! multiple of 16. The output is [..., N].
class Dense final : public WeightedOp
{
public:
    static constexpr char const* kNAME = "YatDense";

    explicit Dense(Attributes const& attributes);

    int32_t nbPreparedInputs() const override;
    using WeightedOp::outputShape;
    nvinfer1::DimsExprs outputShape(nvinfer1::DimsExprs const& x, nvinfer1::DimsExprs const& weight,
        bool prepared, nvinfer1::IExprBuilder& builder) const override;
    int32_t featureAxis(int32_t nbAxes) const override;
    bool wantsChannelsLast(IoDescription const& io) const override;
    void check(IoDescription const& io) const override;
    bool takes(Kernel const& kernel, IoDescription const& io) const override;
    Kernel const& choose(std::vector<Kernel const*> const& candidates, IoDescription const& io,
        int32_t processors) const override;
    Steps steps(Kernel const& main, IoDescription const& io) const override;
    size_t workspaceSize(Kernel const& main, IoDescription const& io) const override;
    void enqueue(IoDescription const& io, LoadedSteps const& steps, int32_t processors,
        void const* const* inputs, void* output, void* workspace, CUstream stream) const override;

private:
    Scaling mScaling;
    bool mSpherical;
};

} // namespace nmn::plugin
