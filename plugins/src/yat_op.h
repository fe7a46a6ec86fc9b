//! What tells one ⵟ op from another; everything else is in YatPlugin.
#pragma once

#include "call.h"
#include "context.h"
#include "fields.h"
#include "kernel.h"

#include <NvInferRuntime.h>

#include <string>
#include <string_view>
#include <vector>

namespace nmn::plugin
{

//! Kernels that are launched before the main one of a call; those without a name are not needed.
struct Steps
{
    std::string weights; //!< Prepares raw weights.
    std::string pixels;  //!< Brings the input to channels last and takes its norms.
    std::string norms;   //!< Takes the norms of the input as it is.
};

//! The same and the main one, loaded.
struct LoadedSteps
{
    Loaded main;
    Loaded weights;
    Loaded pixels;
    Loaded norms;
};

//! One op with its attributes; never changes once made, so that clones of a plugin share it.
//!
//! Methods throw std::invalid_argument if they are given what the op does not take.
class YatOp
{
public:
    virtual ~YatOp() = default;

    //! Write the attributes that the op was made from.
    virtual void write(FieldWriter& fields) const = 0;

    //! Number of inputs in the prepared form.
    virtual int32_t nbPreparedInputs() const = 0;

    //! Sizes of the output.
    virtual nvinfer1::DimsExprs outputShape(nvinfer1::DimsExprs const& x,
        nvinfer1::DimsExprs const& weight, bool prepared, nvinfer1::IExprBuilder& builder) const
        = 0;

    //! The axis of an input whose size the weight decides.
    virtual int32_t featureAxis(nvinfer1::Dims const& x) const = 0;

    //! Whether the input and the output must be channels last, else they must be linear.
    virtual bool wantsChannelsLast(Call const& call) const = 0;

    //! The format that is channels last, or the linear one if the op has none.
    virtual nvinfer1::TensorFormat channelsLastFormat(nvinfer1::DataType type) const = 0;

    //! Check the sizes of a call.
    virtual void check(Call const& call) const = 0;

    //! Whether a kernel of the op computes calls of these types and sizes, smaller ones too.
    virtual bool takes(Kernel const& kernel, Call const& call) const = 0;

    //! Choose one of the `candidates` of a call without timing any.
    virtual Kernel const& choose(std::vector<Kernel const*> const& candidates, Call const& call,
        int32_t processors) const = 0;

    //! Name the kernels that a call needs before `main`.
    virtual Steps steps(Kernel const& main, Call const& call) const = 0;

    //! Bytes of scratch memory for a call, or any smaller one, with the kernel `main`.
    virtual size_t workspaceSize(Kernel const& main, Call const& call) const = 0;

    //! Put the kernels of a call into the stream.
    virtual void enqueue(Call const& call, LoadedSteps const& steps, int32_t processors,
        void const* const* inputs, void* output, void* workspace, CUstream stream) const = 0;
};

//! Return one kernel of every configuration of an op that takes a call on every architecture.
std::vector<Kernel const*> candidates(std::string_view name, YatOp const& op, Call const& call);

} // namespace nmn::plugin
