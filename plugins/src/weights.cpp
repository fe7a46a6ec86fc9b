#include "weights.h"

namespace nmn::plugin
{
namespace
{

constexpr int64_t kPLANE_BYTES = 2;

int32_t narrow(int64_t value)
{
    return static_cast<int32_t>(value);
}

} // namespace

Weights::Weights(IoDescription const& io, WeightShape const& shape, bool spherical,
    void const* const* inputs, Workspace& workspace)
    : planes(nullptr), columnTerm(nullptr), columnScale(nullptr), columnBias(nullptr)
{
    if (io.prepared())
    {
        if (inputs != nullptr)
        {
            planes = inputs[kPLANES];
            columnTerm = inputs[kCOLUMN_TERM];
            columnBias = inputs[kCOLUMN_BIAS];
            columnScale = spherical ? inputs[kCOLUMN_SCALE] : nullptr;
        }
        return;
    }
    if (!usesInPlace(io, shape))
    {
        planes = workspace.takeBytes(io.planes() * shape.planeStride() * kPLANE_BYTES);
    }
    else if (inputs != nullptr)
    {
        planes = inputs[kWEIGHT];
    }
    columnTerm = workspace.take<float>(shape.rows);
    columnScale = workspace.take<float>(shape.rows);
    columnBias = workspace.take<float>(shape.rows);
}

bool usesInPlace(IoDescription const& io, WeightShape const& shape)
{
    return io.type != nvinfer1::DataType::kFLOAT && shape.taps == 1 && shape.groups == 0
           && shape.features % kALIGNMENT == 0;
}

void prepareWeights(Loaded const& kernel, IoDescription const& io, WeightShape const& shape,
    Scaling const& scaling, bool spherical, void const* const* inputs, Weights const& weights,
    CUstream stream)
{
    Arguments arguments;
    arguments[Parameter::weight_pointer] = inputs[kWEIGHT];
    arguments[Parameter::bias_pointer] = inputs[kBIAS];
    arguments[Parameter::plane_pointer] = weights.planes;
    arguments[Parameter::column_term_pointer] = weights.columnTerm;
    arguments[Parameter::column_scale_pointer] = weights.columnScale;
    arguments[Parameter::column_bias_pointer] = weights.columnBias;
    arguments[Parameter::bias_dim] = narrow(shape.rows);
    arguments[Parameter::feat_dim] = narrow(shape.features);
    arguments[Parameter::padded_feat_dim] = narrow(align(shape.features));
    arguments[Parameter::tap_dim] = narrow(shape.taps);
    bool const featuresFirst = shape.groups > 0;
    int64_t const groupRows = featuresFirst ? shape.rows / shape.groups : shape.rows;
    arguments[Parameter::group_row_dim] = narrow(groupRows);
    arguments[Parameter::weight_row_stride]
        = narrow(featuresFirst ? shape.taps : shape.features * shape.taps);
    arguments[Parameter::weight_feat_stride]
        = narrow(featuresFirst ? groupRows * shape.taps : shape.taps);
    arguments[Parameter::plane_stride] = narrow(shape.planeStride());
    arguments[Parameter::norm_scale] = scaling.normScale;
    arguments[Parameter::term_floor] = scaling.termFloor;
    arguments[Parameter::spherical] = static_cast<int32_t>(spherical);
    arguments[Parameter::store] = static_cast<int32_t>(!usesInPlace(io, shape));
    launch(*kernel.kernel, kernel.function, {shape.rows}, arguments, stream);
}

} // namespace nmn::plugin
