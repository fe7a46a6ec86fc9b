#include "weighted_op.h"

#include "log.h"
#include "sizes.h"

namespace nmn::plugin
{
namespace
{

using nvinfer1::DataType;

//! Whether there are kernels for this number of planes. The plane of a 16-bit type is the weight
//! itself; a strongly typed network ensures that it is not of the other 16-bit type.
bool hasRightPlanes(IoDescription const& io)
{
    int32_t const planes = io.planes();
    return io.type == DataType::kFLOAT ? planes == 2 || planes == 3 : planes == 1;
}

} // namespace

void WeightedOp::checkNbInputs(int32_t nbInputs) const
{
    if (nbInputs != kNB_RAW_INPUTS && nbInputs != nbPreparedInputs())
    {
        throw refusal("the op takes ", kNB_RAW_INPUTS, " inputs, or ", nbPreparedInputs(),
            " with prepared weights; got ", nbInputs);
    }
}

DataType WeightedOp::inputType(int32_t input, DataType first, int32_t nbInputs) const
{
    if (nbInputs == kNB_RAW_INPUTS || input == kX)
    {
        return first;
    }
    if (input == kPLANES)
    {
        return first == DataType::kFLOAT ? DataType::kBF16 : first;
    }
    return DataType::kFLOAT;
}

nvinfer1::DimsExprs WeightedOp::outputShape(
    nvinfer1::DimsExprs const* inputs, int32_t nbInputs, nvinfer1::IExprBuilder& builder) const
{
    return outputShape(inputs[kX], inputs[kWEIGHT], nbInputs > kNB_RAW_INPUTS, builder);
}

bool WeightedOp::mayVary(int32_t input, int32_t axis, int32_t nbAxes) const
{
    // Kernels and scratch memory are chosen for the weight.
    return input == kX && axis != featureAxis(nbAxes);
}

bool WeightedOp::suits(IoDescription const& io, int32_t position) const
{
    // Which format the input has also depends on the weight.
    return position != kWEIGHT || (wantsChannelsLast(io) == io.channelsLast && hasRightPlanes(io));
}

void WeightedOp::checkSizes(IoDescription const& io) const
{
    check(io);
    if (!hasRightPlanes(io))
    {
        throw refusal(
            "a weight is 2 or 3 planes if it is float32, else 1; got ", toString(io.weight()));
    }
    // The bias; for prepared weights, also column terms and column scales.
    for (size_t i = kBIAS; i < io.inputs.size(); ++i)
    {
        nvinfer1::Dims const& dims = io.inputs[i];
        if (dims.nbDims != 1 || dims.d[0] != rows(io))
        {
            throw refusal("input ", i, " must have a number for each of the ", rows(io),
                " rows of the weight; got ", toString(dims));
        }
    }
}

} // namespace nmn::plugin
