//! YatAttention: softmax(scale ⟨q, k⟩² / (max(‖q‖² + ‖k‖² − 2⟨q, k⟩, 0) + ε) + mask) v.
#pragma once

#include "attention_problem.h"
#include "scaling.h"
#include "yat_op.h"

namespace nmn::plugin
{

//! YatAttention with its attributes.
//!
//! The inputs are queries [B, H, Lq, D], keys [B, G, Lk, D], values [B, G, Lk, E] and a mask that
//! broadcasts to [B, H, Lq, Lk] and is added to the scores. The output is [B, H, Lq, E]. Batch and
//! lengths may vary within a profile.
class Attention final : public YatOp
{
public:
    static constexpr char const* kNAME = "YatAttention";

    explicit Attention(Attributes const& attributes);

    void checkNbInputs(int32_t nbInputs) const override;
    nvinfer1::DataType inputType(
        int32_t input, nvinfer1::DataType first, int32_t nbInputs) const override;
    nvinfer1::DimsExprs outputShape(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
        nvinfer1::IExprBuilder& builder) const override;
    bool mayVary(int32_t input, int32_t axis, int32_t nbAxes) const override;
    void checkSizes(IoDescription const& io) const override;
    bool takes(Kernel const& kernel, IoDescription const& io) const override;
    Kernel const& choose(std::vector<Kernel const*> const& candidates, IoDescription const& io,
        int32_t processors) const override;
    Steps steps(Kernel const& main, IoDescription const& io) const override;
    size_t workspaceSize(Kernel const& main, IoDescription const& io) const override;
    void enqueue(IoDescription const& io, LoadedSteps const& steps, int32_t processors,
        void const* const* inputs, void* output, void* workspace, CUstream stream) const override;

private:
    //! Whether weights are the softmax of positive scores that are not spherical.
    bool isPlain() const;

    void setOptions(Arguments& arguments) const;

    bool mIsCausal;
    bool mIsSpherical;
    float mPower;
    float mGuard;
    float
        mMaskScale; //!< Exponents of weights are in this unit: 1 / ln 2, or 1 if there is a power.
    Scaling mScaling;
};

} // namespace nmn::plugin
