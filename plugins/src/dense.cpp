#include "dense.h"

#include "dense_problem.h"
#include "log.h"

namespace nmn::plugin
{
namespace
{

void checkSizes(Call const& call)
{
    int32_t const rank = call.prepared ? 3 : 2;
    if (call.x.nbDims < 1 || call.weight.nbDims != rank)
    {
        throw refusal("YatDense takes an input of [..., K] and a weight of [N, K]; got ",
            toString(call.x), " and ", toString(call.weight));
    }
    int64_t const features = call.x.d[call.x.nbDims - 1];
    int64_t const stored = call.weight.d[rank - 1];
    if (stored != (call.prepared ? align(features) : features))
    {
        throw refusal("YatDense takes an input with as many features as the weight has; got ",
            toString(call.x), " and ", toString(call.weight));
    }
}

} // namespace

std::vector<nvinfer1::PluginField> Dense::attributes()
{
    using nvinfer1::PluginFieldType;
    return {
        {"epsilon", nullptr, PluginFieldType::kFLOAT32, 1},
        {"alpha", nullptr, PluginFieldType::kFLOAT32, 1},
        {"spherical", nullptr, PluginFieldType::kINT32, 1},
    };
}

Dense::Dense(FieldReader const& fields)
    : mScaling(fields.number("epsilon", 1e-5F), fields.number("alpha", 1.F)),
      mSpherical(fields.integer("spherical", 0) != 0)
{
}

void Dense::write(FieldWriter& fields) const
{
    fields.add("epsilon", mScaling.epsilon);
    fields.add("alpha", mScaling.alpha);
    fields.add("spherical", std::vector<int32_t>{mSpherical ? 1 : 0});
}

int32_t Dense::nbPreparedInputs() const
{
    return mSpherical ? kCOLUMN_SCALE + 1 : kCOLUMN_BIAS + 1;
}

nvinfer1::DimsExprs Dense::outputShape(nvinfer1::DimsExprs const& x,
    nvinfer1::DimsExprs const& weight, bool prepared, nvinfer1::IExprBuilder& /*builder*/) const
{
    int32_t const rank = prepared ? 3 : 2;
    if (x.nbDims < 1 || weight.nbDims != rank)
    {
        throw refusal("YatDense takes an input of [..., K] and a weight of [N, K]; got ", x.nbDims,
            " and ", weight.nbDims, " dimensions");
    }
    auto const* const features = x.d[x.nbDims - 1];
    auto const* const stored = weight.d[rank - 1];
    if (features->isConstant() && stored->isConstant())
    {
        int64_t const size = features->getConstantValue();
        if (stored->getConstantValue() != (prepared ? align(size) : size))
        {
            throw refusal("YatDense takes an input with as many features as the weight has; got ",
                size, " and ", stored->getConstantValue());
        }
    }
    nvinfer1::DimsExprs y = x;
    y.d[y.nbDims - 1] = weight.d[rank - 2];
    return y;
}

int32_t Dense::featureAxis(nvinfer1::Dims const& x) const
{
    return x.nbDims - 1;
}

bool Dense::wantsChannelsLast(Call const& /*call*/) const
{
    return false;
}

nvinfer1::TensorFormat Dense::channelsLastFormat(nvinfer1::DataType /*type*/) const
{
    return nvinfer1::TensorFormat::kLINEAR;
}

void Dense::check(Call const& call) const
{
    checkSizes(call);
    DenseProblem const problem(call);
    if (problem.outputs < 1 || problem.features < 1)
    {
        throw refusal("YatDense takes a weight of at least one row and one feature; got ",
            toString(call.weight));
    }
    checkReach("the input of YatDense", multiply(problem.batch, problem.features));
    checkReach("the output of YatDense", multiply(problem.batch, problem.outputs));
    checkReach("the weight of YatDense", multiply(call.planes(), problem.weight().planeStride()));
}

} // namespace nmn::plugin
