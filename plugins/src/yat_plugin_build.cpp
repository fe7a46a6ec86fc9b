//! What TensorRT asks a plugin while an engine is built.

#include "yat_plugin.h"

#include <algorithm>

namespace nmn::plugin
{
namespace
{

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

constexpr int32_t kSUCCESS = 0;
constexpr int32_t kFAILURE = 1;

//! The largest call in a range of shapes.
Call largest(DynamicPluginTensorDesc const* inputs, int32_t nbInputs)
{
    std::vector<PluginTensorDesc> descriptions;
    std::transform(inputs, inputs + nbInputs, std::back_inserter(descriptions),
        [](DynamicPluginTensorDesc const& input) { return input.desc; });
    return {descriptions.data(), nbInputs, inputs[kX].max, inputs[kWEIGHT].max};
}

//! Type of an input, given that of the first.
DataType inputType(int32_t index, DataType x, bool prepared)
{
    if (!prepared || index == kX)
    {
        return x;
    }
    if (index == kPLANES)
    {
        return x == DataType::kFLOAT ? DataType::kBF16 : x;
    }
    return DataType::kFLOAT;
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

void YatPlugin::checkNbInputs(int32_t nbInputs) const
{
    if (nbInputs != kNB_RAW_INPUTS && nbInputs != mOp->nbPreparedInputs())
    {
        throw refusal(mName, " takes ", kNB_RAW_INPUTS, " inputs, or ", mOp->nbPreparedInputs(),
            " with prepared weights; got ", nbInputs);
    }
}

int32_t YatPlugin::getOutputDataTypes(DataType* outputTypes, int32_t nbOutputs,
    DataType const* inputTypes, int32_t nbInputs) const noexcept
{
    return guarded(mName, kFAILURE,
        [&]
        {
            checkNbInputs(nbInputs);
            for (int32_t i = 0; i < nbInputs; ++i)
            {
                DataType const wanted = inputType(i, inputTypes[kX], nbInputs > kNB_RAW_INPUTS);
                if (!isSupported(inputTypes[kX]) || inputTypes[i] != wanted)
                {
                    throw refusal("inputs must be float32, float16 or bfloat16, and the weight and"
                                  " the bias of the input's type; got type number ",
                        static_cast<int32_t>(inputTypes[i]), " for input ", i);
                }
            }
            std::fill_n(outputTypes, nbOutputs, inputTypes[kX]);
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
            checkNbInputs(nbInputs);
            outputs[0]
                = mOp->outputShape(inputs[kX], inputs[kWEIGHT], nbInputs > kNB_RAW_INPUTS, builder);
            return kSUCCESS;
        });
}

bool YatPlugin::supportsFormatCombination(int32_t pos, DynamicPluginTensorDesc const* inOut,
    int32_t nbInputs, int32_t /*nbOutputs*/) noexcept
{
    return guarded(mName, false,
        [&]
        {
            checkNbInputs(nbInputs);
            PluginTensorDesc const& x = inOut[kX].desc;
            PluginTensorDesc const& asked = inOut[pos].desc;
            if (pos == kX)
            {
                // Which of the two it must be depends on the weight too, and that is asked for
                // next.
                return isSupported(asked.type)
                       && (asked.format == TensorFormat::kLINEAR
                           || asked.format == mOp->channelsLastFormat(asked.type));
            }
            if (pos == nbInputs)
            {
                return asked.type == x.type && asked.format == x.format;
            }
            DataType const wanted = inputType(pos, x.type, nbInputs > kNB_RAW_INPUTS);
            if (asked.type != wanted || asked.format != TensorFormat::kLINEAR)
            {
                return false;
            }
            Call const call(&x, nbInputs, x.dims, inOut[kWEIGHT].desc.dims);
            return pos != kWEIGHT || mOp->wantsChannelsLast(call) == call.channelsLast;
        });
}

int32_t YatPlugin::configurePlugin(DynamicPluginTensorDesc const* in, int32_t nbInputs,
    DynamicPluginTensorDesc const* /*out*/, int32_t /*nbOutputs*/) noexcept
{
    return guarded(mName, kFAILURE,
        [&]
        {
            checkNbInputs(nbInputs);
            Call const call = largest(in, nbInputs);
            mOp->check(call);
            mTactics.clear();
            for (Kernel const* const kernel : candidates(mName, *mOp, call))
            {
                mTactics.push_back(kernel->tactic);
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
            Call const call = largest(inputs, nbInputs);
            size_t size = 0;
            for (Kernel const& kernel : kernels())
            {
                if (kernel.op == mName && mOp->takes(kernel, call))
                {
                    size = std::max(size, mOp->workspaceSize(kernel, call));
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
