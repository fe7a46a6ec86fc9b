//! Interface of a ⵟ op of an input, a weight and a bias. The weight is as in ONNX, or was prepared
//! when the engine was built.
#pragma once

#include "yat_op.h"

namespace nmn::plugin
{

//! An op with a weight.
class WeightedOp : public YatOp
{
public:
    using YatOp::YatOp;

    void checkNbInputs(int32_t nbInputs) const final;
    nvinfer1::DataType inputType(
        int32_t input, nvinfer1::DataType first, int32_t nbInputs) const final;
    nvinfer1::DimsExprs outputShape(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
        nvinfer1::IExprBuilder& builder) const final;
    bool mayVary(int32_t input, int32_t axis, int32_t nbAxes) const final;
    bool suits(IoDescription const& io, int32_t position) const final;
    void checkSizes(IoDescription const& io) const final;

    //! Number of inputs in the prepared form.
    virtual int32_t nbPreparedInputs() const = 0;

    //! Sizes of the output.
    virtual nvinfer1::DimsExprs outputShape(nvinfer1::DimsExprs const& x,
        nvinfer1::DimsExprs const& weight, bool prepared, nvinfer1::IExprBuilder& builder) const
        = 0;

    //! Rows of the weight: outputs for one position of the input.
    virtual int64_t rows(IoDescription const& io) const
    {
        return io.rows();
    }

    //! The axis of an input of `nbAxes` axes whose size is determined by the weight.
    virtual int32_t featureAxis(int32_t nbAxes) const = 0;

    //! Whether the input and the output must be channels last; otherwise they must be linear.
    virtual bool wantsChannelsLast(IoDescription const& io) const = 0;

    //! Check the sizes of the input and the weight.
    virtual void check(IoDescription const& io) const = 0;
};

} // namespace nmn::plugin
