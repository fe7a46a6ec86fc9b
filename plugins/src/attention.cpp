#include "attention.h"

#include "log.h"

#include <cmath>

namespace nmn::plugin
{
namespace
{

using nvinfer1::Dims;
using nvinfer1::DimsExprs;

constexpr int32_t kRANK = 4;

constexpr double kLOG2_E = 1.4426950408889634;

float checked(char const* name, float value)
{
    if (!(std::isfinite(value) && value >= 0.F))
    {
        throw refusal(name, " must be finite and at least 0; got ", value);
    }
    return value;
}

void checkRank(int32_t input, int32_t rank)
{
    if (rank != kRANK)
    {
        throw refusal(
            "YatAttention takes inputs of four dimensions; got ", rank, " for input ", input);
    }
}

void checkMask(AttentionProblem const& problem)
{
    int64_t const sizes[] = {problem.batch, problem.heads(), problem.queries, problem.keys};
    for (int32_t axis = 0; axis < kRANK; ++axis)
    {
        int64_t const size = problem.mask.d[axis];
        if (size != 1 && size != sizes[axis])
        {
            throw refusal("YatAttention takes a mask that broadcasts to [B, H, Lq, Lk]; got ",
                toString(problem.mask), ", of which axis ", axis, " must be 1 or ", sizes[axis]);
        }
    }
}

} // namespace

Attention::Attention(Attributes const& attributes)
    : YatOp(attributes), mIsCausal(attributes.integer("is_causal") != 0),
      mIsSpherical(attributes.integer("spherical") != 0),
      mPower(checked("power", attributes.number("power"))),
      mGuard(checked("guard", attributes.number("guard"))),
      mMaskScale(mPower > 0.F ? 1.F : static_cast<float>(kLOG2_E)),
      mScaling(attributes.number("epsilon"), attributes.number("scale") * mMaskScale)
{
}

bool Attention::isPlain() const
{
    return !mIsSpherical && !mScaling.negative && mPower == 0.F;
}

void Attention::checkNbInputs(int32_t nbInputs) const
{
    if (nbInputs != kNB_ATTENTION_INPUTS)
    {
        throw refusal(
            "YatAttention takes 4 inputs: queries, keys, values and a mask; got ", nbInputs);
    }
}

nvinfer1::DataType Attention::inputType(
    int32_t /*input*/, nvinfer1::DataType first, int32_t /*nbInputs*/) const
{
    return first;
}

DimsExprs Attention::outputShape(
    DimsExprs const* inputs, int32_t nbInputs, nvinfer1::IExprBuilder& /*builder*/) const
{
    for (int32_t i = 0; i < nbInputs; ++i)
    {
        checkRank(i, inputs[i].nbDims);
    }
    DimsExprs y = inputs[kQUERIES];
    y.d[3] = inputs[kVALUES].d[3];
    return y;
}

bool Attention::mayVary(int32_t input, int32_t axis, int32_t /*nbAxes*/) const
{
    // Heads and features may not, because kernels are chosen for them.
    return input == kMASK || axis == 0 || axis == 2;
}

void Attention::checkSizes(IoDescription const& io) const
{
    for (int32_t i = 0; i < kNB_ATTENTION_INPUTS; ++i)
    {
        checkRank(i, io.inputs[i].nbDims);
    }
    Dims const& q = io.inputs[kQUERIES];
    Dims const& k = io.inputs[kKEYS];
    Dims const& v = io.inputs[kVALUES];
    bool const fits = q.d[0] == k.d[0] && std::equal(k.d, k.d + 3, v.d) && q.d[3] == k.d[3]
                      && k.d[1] > 0 && q.d[1] % k.d[1] == 0;
    if (!fits)
    {
        throw refusal("YatAttention takes queries [B, H, Lq, D], keys [B, G, Lk, D] and values"
                      " [B, G, Lk, E], where G divides H; got ",
            toString(q), ", ", toString(k), " and ", toString(v));
    }
    if (std::max(q.d[3], v.d[3]) > kMOST_FEATURES)
    {
        throw refusal("YatAttention takes at most ", kMOST_FEATURES, " features per head; got ",
            std::max(q.d[3], v.d[3]));
    }
    AttentionProblem const problem(io);
    checkMask(problem);
    for (Dims const& dims : io.inputs)
    {
        checkReach("an input of YatAttention", product(dims, 0, dims.nbDims));
    }
    checkReach(
        "the output of YatAttention", multiply(product(q, 0, kRANK - 1), problem.valueFeatures));
    checkReach(
        "the lengths of YatAttention", multiply(problem.queries, problem.group) + problem.keys);
}

} // namespace nmn::plugin
