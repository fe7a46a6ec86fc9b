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

std::vector<PluginTensorDesc> largestShapes(DynamicPluginTensorDesc const* inputs, int32_t nbInputs)
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

//! Refuse weights whose sizes vary within a profile, because kernels and scratch memory are chosen
//! for the largest size.
void checkFixedWeights(YatOp const& op, DynamicPluginTensorDesc const* inputs, int32_t nbInputs)
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

//! Return the required type of an input, given the type of the first.
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

//! Whether there are kernels for this number of planes. The plane of a 16-bit type is the weight
//! itself; a strongly typed network ensures that it is not of the other 16-bit type.
bool hasRightPlanes(IoDescription const& io)
{
    int32_t const planes = io.planes();
    return io.type == DataType::kFLOAT ? planes == 2 || planes == 3 : planes == 1;
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

void YatPlugin::checkIo(
    IoDescription const& io, PluginTensorDesc const* inputs, int32_t nbInputs) const
{
    mOp->check(io);
    if (!hasRightPlanes(io))
    {
        throw refusal(
            "a weight is 2 or 3 planes if it is float32, else 1; got ", toString(io.weight));
    }
    // The bias; for prepared weights, also column terms and column scales.
    for (int32_t i = kBIAS; i < nbInputs; ++i)
    {
        nvinfer1::Dims const& dims = inputs[i].dims;
        if (dims.nbDims != 1 || dims.d[0] != mOp->rows(io))
        {
            throw refusal("input ", i, " must have a number for each of the ", mOp->rows(io),
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
                // Which of the two is required also depends on the weight, which is position 1.
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
            IoDescription const io(&x, nbInputs, x.dims, asked.dims);
            return mOp->wantsChannelsLast(io) == io.channelsLast && hasRightPlanes(io);
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
            checkFixedWeights(*mOp, in, nbInputs);
            auto const inputs = largestShapes(in, nbInputs);
            IoDescription const io(inputs.data(), nbInputs, in[kX].max, in[kWEIGHT].max);
            checkIo(io, inputs.data(), nbInputs);
            auto const found = candidates(mName, *mOp, io);
            // The choice without timing comes first, because TensorRT-RTX uses the first tactic.
            IoDescription const usual(inputs.data(), nbInputs, in[kX].opt, in[kWEIGHT].opt);
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
            auto const descriptions = largestShapes(inputs, nbInputs);
            IoDescription const io(
                descriptions.data(), nbInputs, inputs[kX].max, inputs[kWEIGHT].max);
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
