//! The interface that TensorRT uses while an engine is built.

#include "yat_plugin.h"

#include "sizes.h"

#include <algorithm>

namespace nmn::plugin
{
namespace
{

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

//! Multiprocessors of a typical GPU, for a choice that is made before the GPU is known.
constexpr int32_t kUSUAL_PROCESSORS = 128;

// The sizes of a tensor: the largest in a profile, those to optimize for, and those that are known.
constexpr auto kMAX = [](DynamicPluginTensorDesc const& tensor) { return tensor.max; };
constexpr auto kOPT = [](DynamicPluginTensorDesc const& tensor) { return tensor.opt; };
constexpr auto kKNOWN = [](DynamicPluginTensorDesc const& tensor) { return tensor.desc.dims; };

template <typename Sizes>
IoDescription describe(
    DynamicPluginTensorDesc const* inputs, int32_t nbInputs, Sizes const& sizesOf)
{
    std::vector<PluginTensorDesc> descriptions;
    std::transform(inputs, inputs + nbInputs, std::back_inserter(descriptions),
        [&sizesOf](DynamicPluginTensorDesc const& input)
        {
            PluginTensorDesc description = input.desc;
            description.dims = sizesOf(input);
            return description;
        });
    return {descriptions.data(), nbInputs};
}

//! Refuse sizes that vary within a profile although kernels are chosen for them.
void checkFixedSizes(YatOp const& op, DynamicPluginTensorDesc const* inputs, int32_t nbInputs)
{
    for (int32_t i = 0; i < nbInputs; ++i)
    {
        int32_t const nbAxes = inputs[i].max.nbDims;
        for (int32_t axis = 0; axis < nbAxes; ++axis)
        {
            if (!op.mayVary(i, axis, nbAxes) && inputs[i].min.d[axis] != inputs[i].max.d[axis])
            {
                throw refusal("axis ", axis, " of input ", i,
                    " must not vary within a profile; got ", toString(inputs[i].min), " to ",
                    toString(inputs[i].max));
            }
        }
    }
}

bool isSupported(DataType type)
{
    return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

} // namespace

int32_t YatPlugin::getNbOutputs() const noexcept
{
    return 1;
}

int32_t YatPlugin::getOutputDataTypes(DataType* outputTypes, int32_t nbOutputs,
    DataType const* inputTypes, int32_t nbInputs) const noexcept
{
    return guarded(mName, kFAILURE,
        [&]
        {
            mOp->checkNbInputs(nbInputs);
            for (int32_t i = 0; i < nbInputs; ++i)
            {
                DataType const wanted = mOp->inputType(i, inputTypes[0], nbInputs);
                if (!isSupported(inputTypes[0]) || inputTypes[i] != wanted)
                {
                    throw refusal(
                        "inputs must be float32, float16 or bfloat16, and those that are not"
                        " prepared of the input's type; got type number ",
                        static_cast<int32_t>(inputTypes[i]), " for input ", i);
                }
            }
            std::fill_n(outputTypes, nbOutputs, inputTypes[0]);
            return kSUCCESS;
        });
}

int32_t YatPlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
    nvinfer1::DimsExprs const* /*shapeInputs*/, int32_t /*nbShapeInputs*/,
    nvinfer1::DimsExprs* outputs, int32_t /*nbOutputs*/, nvinfer1::IExprBuilder& builder) noexcept
{
    return guarded(mName, kFAILURE,
        [&]
        {
            mOp->checkNbInputs(nbInputs);
            outputs[0] = mOp->outputShape(inputs, nbInputs, builder);
            return kSUCCESS;
        });
}

bool YatPlugin::supportsFormatCombination(int32_t pos, DynamicPluginTensorDesc const* inOut,
    int32_t nbInputs, int32_t /*nbOutputs*/) noexcept
{
    return guarded(mName, false,
        [&]
        {
            mOp->checkNbInputs(nbInputs);
            PluginTensorDesc const& first = inOut[0].desc;
            PluginTensorDesc const& asked = inOut[pos].desc;
            if (pos == nbInputs)
            {
                return asked.type == first.type && asked.format == first.format;
            }
            bool const isLinear = asked.format == TensorFormat::kLINEAR;
            if (pos == 0)
            {
                return isSupported(asked.type)
                       && (isLinear || asked.format == mOp->channelsLastFormat(asked.type));
            }
            return isLinear && asked.type == mOp->inputType(pos, first.type, nbInputs)
                   && mOp->suits(describe(inOut, nbInputs, kKNOWN), pos);
        });
}

int32_t YatPlugin::configurePlugin(DynamicPluginTensorDesc const* in, int32_t nbInputs,
    DynamicPluginTensorDesc const* /*out*/, int32_t /*nbOutputs*/) noexcept
{
    return guarded(mName, kFAILURE,
        [&]
        {
            mTactics.clear();
            mOp->checkNbInputs(nbInputs);
            checkFixedSizes(*mOp, in, nbInputs);
            IoDescription const io = describe(in, nbInputs, kMAX);
            mOp->checkSizes(io);
            auto const found = candidates(mName, *mOp, io);
            // The choice without timing comes first, because TensorRT-RTX uses the first tactic.
            IoDescription const usual = describe(in, nbInputs, kOPT);
            mTactics.push_back(mOp->choose(found, usual, kUSUAL_PROCESSORS).tactic);
            for (Kernel const* const kernel : found)
            {
                if (kernel->tactic != mTactics[0])
                {
                    mTactics.push_back(kernel->tactic);
                }
            }
            return kSUCCESS;
        });
}

size_t YatPlugin::getWorkspaceSize(DynamicPluginTensorDesc const* inputs, int32_t nbInputs,
    DynamicPluginTensorDesc const* /*outputs*/, int32_t /*nbOutputs*/) const noexcept
{
    return guarded(mName, size_t{0},
        [&]
        {
            IoDescription const io = describe(inputs, nbInputs, kMAX);
            size_t size = 0;
            for (Kernel const& kernel : kernels())
            {
                if (kernel.op == mName && mOp->takes(kernel, io))
                {
                    size = std::max(size, mOp->workspaceSize(kernel, io));
                }
            }
            return size;
        });
}

int32_t YatPlugin::getNbTactics() noexcept
{
    return static_cast<int32_t>(mTactics.size());
}

int32_t YatPlugin::getValidTactics(int32_t* tactics, int32_t nbTactics) noexcept
{
    std::copy_n(mTactics.begin(), std::min<size_t>(mTactics.size(), nbTactics), tactics);
    return kSUCCESS;
}

char const* YatPlugin::getTimingCacheID() noexcept
{
    return mTimingCacheId.c_str();
}

char const* YatPlugin::getMetadataString() noexcept
{
    return mAttributes.c_str();
}

} // namespace nmn::plugin
