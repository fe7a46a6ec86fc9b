//! Interface of a ⵟ op: everything that differs between ops. The rest is in YatPlugin.
#pragma once

#include "attributes.h"
#include "context.h"
#include "io_description.h"
#include "kernel.h"

#include <NvInferRuntime.h>

#include <string>
#include <string_view>
#include <vector>

namespace nmn::plugin
{

//! Names of the kernels that are launched before the main one; empty if not needed.
struct Steps
{
    std::string weights; //!< Prepares raw weights.
    std::string pixels;  //!< Converts the input to channels last and computes its norms.
    std::string norms;   //!< Computes the norms of the input.
};

//! The main kernel and those before it, loaded.
struct LoadedSteps
{
    Loaded main;
    Loaded weights;
    Loaded pixels;
    Loaded norms;
};

//! An op with its attributes. It is immutable, so that clones of a plugin share it.
//!
//! Methods throw std::invalid_argument if the op does not support their arguments.
class YatOp
{
public:
    explicit YatOp(Attributes attributes) : mAttributes(std::move(attributes)) {}

    virtual ~YatOp() = default;

    Attributes const& attributes() const
    {
        return mAttributes;
    }

    //! Check the number of inputs.
    virtual void checkNbInputs(int32_t nbInputs) const = 0;

    //! Return the required type of an input, given that of the first.
    virtual nvinfer1::DataType inputType(
        int32_t input, nvinfer1::DataType first, int32_t nbInputs) const = 0;

    //! Sizes of the output.
    virtual nvinfer1::DimsExprs outputShape(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
        nvinfer1::IExprBuilder& builder) const = 0;

    //! Whether the size of an input along an axis may vary within a profile.
    virtual bool mayVary(int32_t input, int32_t axis, int32_t nbAxes) const = 0;

    //! The channels-last format of the first input and the output, or the linear one if there is
    //! none. The other inputs are linear.
    virtual nvinfer1::TensorFormat channelsLastFormat(nvinfer1::DataType /*type*/) const
    {
        return nvinfer1::TensorFormat::kLINEAR;
    }

    //! Whether the op takes the input `position` in this format. Of the later inputs only the sizes
    //! are known.
    virtual bool suits(IoDescription const& /*io*/, int32_t /*position*/) const
    {
        return true;
    }

    //! Check the sizes of a layer.
    virtual void checkSizes(IoDescription const& io) const = 0;

    //! Whether a kernel of the op supports a layer of these types and sizes, and smaller ones.
    virtual bool takes(Kernel const& kernel, IoDescription const& io) const = 0;

    //! Choose one of the `candidates` of a layer without timing.
    virtual Kernel const& choose(std::vector<Kernel const*> const& candidates,
        IoDescription const& io, int32_t processors) const = 0;

    //! Return the names of the kernels that must run before `main`.
    virtual Steps steps(Kernel const& main, IoDescription const& io) const = 0;

    //! Bytes of scratch memory for a layer of these or smaller sizes with the kernel `main`.
    virtual size_t workspaceSize(Kernel const& main, IoDescription const& io) const = 0;

    //! Launch all kernels of a layer on the stream.
    virtual void enqueue(IoDescription const& io, LoadedSteps const& steps, int32_t processors,
        void const* const* inputs, void* output, void* workspace, CUstream stream) const = 0;

private:
    Attributes mAttributes;
};

//! Return the kernels of an op that support a layer on every architecture, one per tactic.
std::vector<Kernel const*> candidates(
    std::string_view name, YatOp const& op, IoDescription const& io);

} // namespace nmn::plugin
