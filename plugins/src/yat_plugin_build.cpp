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

//! Multiprocessors of a usual GPU, for a choice that is made before there is one.
constexpr int32_t kUSUAL_PROCESSORS = 128;

std::vector<PluginTensorDesc> settled(DynamicPluginTensorDesc const* inputs, int32_t nbInputs)
{
    std::vector<PluginTensorDesc> descriptions;
    std::transform(inputs, inputs + nbInputs, std::back_inserter(descriptions),
        [](DynamicPluginTensorDesc const& input)
        {
            PluginTensorDesc description = input.desc;
            description.dims = input.max;
            return description;
        });
    return descriptions;
}

//! Refuse sizes of weights, and of what goes with them, that vary within a profile: which kernels
//! there are, and how much scratch memory they need, is decided for the largest.
void checkSettled(YatOp const& op, DynamicPluginTensorDesc const* inputs, int32_t nbInputs)
{
    for (int32_t i = 0; i < nbInputs; ++i)
    {
        for (int32_t axis = 0; axis < inputs[i].max.nbDims; ++axis)
        {
            bool const mayVary = i == kX && axis != op.featureAxis(inputs[i].max);
            if (!mayVary && inputs[i].min.d[axis] != inputs[i].max.d[axis])
            {
                throw refusal("sizes of weights must not vary within a profile; got ",
                    toString(inputs[i].min), " to ", toString(inputs[i].max), " for input ", i);
            }
        }
    }
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

//! Whether as many planes add up to the weight as kernels of the type take. Those of a 16-bit type
//! are the weight itself; that they are not of the other one, a strongly typed network sees to.
bool hasRightPlanes(Call const& call)
{
    int32_t const planes = call.planes();
    return call.type == DataType::kFLOAT ? planes == 2 || planes == 3 : planes == 1;
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

void YatPlugin::checkCall(Call const& call, PluginTensorDesc const* inputs, int32_t nbInputs) const
{
    mOp->check(call);
    if (!hasRightPlanes(call))
    {
        throw refusal(
            "a weight is 2 or 3 planes if it is float32, else 1; got ", toString(call.weight));
    }
    // The bias, and of prepared weights the terms and the scales.
    for (int32_t i = kBIAS; i < nbInputs; ++i)
    {
        nvinfer1::Dims const& dims = inputs[i].dims;
        if (dims.nbDims != 1 || dims.d[0] != call.rows())
        {
            throw refusal("input ", i, " must have a number for each of the ", call.rows(),
                " rows of the weight; got ", toString(dims));
        }
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
            if (pos != kWEIGHT)
            {
                return true;
            }
            Call const call(&x, nbInputs, x.dims, asked.dims);
            return mOp->wantsChannelsLast(call) == call.channelsLast && hasRightPlanes(call);
        });
}

int32_t YatPlugin::configurePlugin(DynamicPluginTensorDesc const* in, int32_t nbInputs,
    DynamicPluginTensorDesc const* /*out*/, int32_t /*nbOutputs*/) noexcept
{
    return guarded(mName, kFAILURE,
        [&]
        {
            mTactics.clear();
            checkNbInputs(nbInputs);
            checkSettled(*mOp, in, nbInputs);
            auto const inputs = settled(in, nbInputs);
            Call const call(inputs.data(), nbInputs, in[kX].max, in[kWEIGHT].max);
            checkCall(call, inputs.data(), nbInputs);
            auto const found = candidates(mName, *mOp, call);
            // First the one that is chosen without timing: TensorRT-RTX takes the first.
            Call const usual(inputs.data(), nbInputs, in[kX].opt, in[kWEIGHT].opt);
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
            auto const descriptions = settled(inputs, nbInputs);
            Call const call(descriptions.data(), nbInputs, inputs[kX].max, inputs[kWEIGHT].max);
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
