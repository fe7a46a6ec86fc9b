#include "dense.h"

#include "dense_problem.h"
#include "log.h"

namespace nmn::plugin
{
namespace
{

int32_t weightRank(bool isPrepared)
{
    return isPrepared ? 3 : 2;
}

void checkRanks(int32_t x, int32_t weight, bool isPrepared)
{
    if (x < 1 || weight != weightRank(isPrepared))
    {
        throw refusal("YatDense takes an input of [..., K] and a weight of [N, K]; got ", x,
            " and ", weight, " dimensions");
    }
}

void checkFeatures(int64_t features, int64_t stored, bool isPrepared)
{
    if (stored != (isPrepared ? align(features) : features))
    {
        throw refusal("YatDense takes an input with as many features as the weight has; got ",
            features, " and ", stored);
    }
}

} // namespace

Dense::Dense(Attributes const& attributes)
    : WeightedOp(attributes), mScaling(attributes.number("epsilon"), attributes.number("alpha")),
      mSpherical(attributes.integer("spherical") != 0)
{
}

int32_t Dense::nbPreparedInputs() const
{
    return mSpherical ? kCOLUMN_SCALE + 1 : kCOLUMN_BIAS + 1;
}

nvinfer1::DimsExprs Dense::outputShape(nvinfer1::DimsExprs const& x,
    nvinfer1::DimsExprs const& weight, bool prepared, nvinfer1::IExprBuilder& /*builder*/) const
{
    checkRanks(x.nbDims, weight.nbDims, prepared);
    int32_t const rank = weightRank(prepared);
    auto const* const features = x.d[x.nbDims - 1];
    auto const* const stored = weight.d[rank - 1];
    if (features->isConstant() && stored->isConstant())
    {
        checkFeatures(features->getConstantValue(), stored->getConstantValue(), prepared);
    }
    nvinfer1::DimsExprs y = x;
    y.d[y.nbDims - 1] = weight.d[rank - 2];
    return y;
}

int32_t Dense::featureAxis(int32_t nbAxes) const
{
    return nbAxes - 1;
}

bool Dense::wantsChannelsLast(IoDescription const& /*io*/) const
{
    return false;
}

void Dense::check(IoDescription const& io) const
{
    checkRanks(io.x().nbDims, io.weight().nbDims, io.prepared());
    checkFeatures(
        io.x().d[io.x().nbDims - 1], io.weight().d[io.weight().nbDims - 1], io.prepared());
    DenseProblem const problem(io);
    if (problem.outputs < 1 || problem.features < 1)
    {
        throw refusal("YatDense takes a weight of at least one row and one feature; got ",
            toString(io.weight()));
    }
    checkReach("the input of YatDense", multiply(problem.batch, problem.features));
    checkReach("the output of YatDense", multiply(problem.batch, problem.outputs));
    checkReach("the weight of YatDense", multiply(io.planes(), problem.weight().planeStride()));
}

} // namespace nmn::plugin
