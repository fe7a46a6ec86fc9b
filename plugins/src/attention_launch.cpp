//! YatAttention on a GPU: choice and launch of the kernels.

#include "attention.h"
#include "log.h"
#include "norms.h"
#include "workspace.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace nmn::plugin
{
namespace
{

//! Maximum number of parts of all tiles together. It bounds the scratch memory, and is at least
//! four per multiprocessor of current GPUs.
constexpr int64_t kMOST_SLOTS = 1024;

bool isSplit(Kernel const& kernel)
{
    return kernel.takes(Parameter::partial_pointer);
}

bool hasMask(Kernel const& kernel)
{
    return kernel.constant("HAS_MASK") != 0;
}

bool takesNorms(Kernel const& kernel)
{
    return kernel.takes(Parameter::key_norm_pointer);
}

bool isAligned(Kernel const& kernel)
{
    return kernel.needsMultiple(Parameter::feat_dim);
}

//! Rows of the tile for few rows.
constexpr int32_t kFEW_ROWS = 16;

bool isForFewRows(Kernel const& kernel)
{
    return kernel.constant("BLOCK_SIZE_M") <= kFEW_ROWS;
}

//! Order kernels by what they compute and a layer does not need.
auto cost(Kernel const& kernel)
{
    return std::make_tuple(kernel.constant("OPTIONS"), kernel.constant("HAS_MASK"),
        kernel.constant("BLOCK_SIZE_FEAT"));
}

//! Whether no kernel for the same layers has fewer features that are enough.
bool isTight(Kernel const& kernel, int64_t features)
{
    auto const isTighter = [&](Kernel const& other)
    {
        int32_t const size = other.constant("BLOCK_SIZE_FEAT");
        return other.op == kernel.op && other.type == kernel.type
               && isAligned(other) == isAligned(kernel)
               && other.constant("OPTIONS") == kernel.constant("OPTIONS")
               && hasMask(other) == hasMask(kernel) && features <= size
               && size < kernel.constant("BLOCK_SIZE_FEAT");
    };
    return std::none_of(kernels().begin(), kernels().end(), isTighter);
}

//! Return the number of parts of the keys on a GPU of `processors` multiprocessors.
int64_t nbParts(Kernel const& kernel, AttentionProblem const& problem, int32_t processors)
{
    if (!isSplit(kernel))
    {
        return 1;
    }
    int64_t const tiles = problem.tiles(kernel);
    int64_t const wanted = ceilDiv(kPROGRAMS_PER_PROCESSOR * processors, tiles);
    int64_t const most = ceilDiv(problem.keys, kBLOCKS_PER_PART * kernel.constant("BLOCK_SIZE_N"));
    int64_t const available = kMOST_SLOTS / tiles;
    return std::max<int64_t>(1, std::min({wanted, most, kMOST_KEY_PARTS, available}));
}

//! Addresses in the scratch memory of a layer.
struct Scratch
{
    float* norms{nullptr};
    float* partial{nullptr};
    float* partialSums{nullptr};
    int32_t* arrivals{nullptr};

    //! \param slots Total number of parts of all tiles, or 0 if every tile has one part.
    Scratch(Kernel const& kernel, AttentionProblem const& problem, int64_t slots, int64_t tiles,
        Workspace& workspace)
    {
        if (takesNorms(kernel))
        {
            norms = workspace.take<float>(problem.batch * problem.keyHeads * problem.keys);
        }
        if (isSplit(kernel))
        {
            int64_t const rows = kernel.constant("BLOCK_SIZE_M");
            partial
                = workspace.take<float>(slots * rows * kernel.constant("BLOCK_SIZE_VALUE_FEAT"));
            partialSums = workspace.take<float>(slots * rows * 2);
            arrivals = workspace.take<int32_t>(slots > 0 ? tiles : 0);
        }
    }
};

//! Return the arguments of the main kernel except its options. A kernel uses those that it has.
Arguments argumentsOf(AttentionProblem const& problem, Scratch const& scratch,
    void const* const* inputs, void* output)
{
    using P = Parameter;
    auto const narrow = [](int64_t value) { return static_cast<int32_t>(value); };
    Arguments arguments;
    arguments[P::query_pointer] = inputs[kQUERIES];
    arguments[P::key_pointer] = inputs[kKEYS];
    arguments[P::value_pointer] = inputs[kVALUES];
    arguments[P::mask_pointer] = inputs[kMASK];
    arguments[P::key_norm_pointer] = scratch.norms;
    arguments[P::output_pointer] = output;
    arguments[P::partial_pointer] = scratch.partial;
    arguments[P::partial_sum_pointer] = scratch.partialSums;
    arguments[P::arrival_pointer] = scratch.arrivals;
    arguments[P::key_head_dim] = narrow(problem.keyHeads);
    arguments[P::group_dim] = narrow(problem.group);
    arguments[P::query_dim] = narrow(problem.queries);
    arguments[P::key_dim] = narrow(problem.keys);
    arguments[P::feat_dim] = narrow(problem.features);
    arguments[P::value_feat_dim] = narrow(problem.valueFeatures);
    auto const setStrides = [&](std::array<TypedParameter<int32_t>, 3> const& strides,
                                int64_t heads, int64_t rows, int64_t features)
    {
        arguments[strides[0]] = narrow(heads * rows * features);
        arguments[strides[1]] = narrow(rows * features);
        arguments[strides[2]] = narrow(features);
    };
    setStrides({P::query_batch_stride, P::query_head_stride, P::query_row_stride}, problem.heads(),
        problem.queries, problem.features);
    setStrides({P::key_batch_stride, P::key_head_stride, P::key_row_stride}, problem.keyHeads,
        problem.keys, problem.features);
    setStrides({P::value_batch_stride, P::value_head_stride, P::value_row_stride}, problem.keyHeads,
        problem.keys, problem.valueFeatures);
    setStrides({P::output_batch_stride, P::output_head_stride, P::output_row_stride},
        problem.heads(), problem.queries, problem.valueFeatures);
    arguments[P::norm_batch_stride] = narrow(problem.keyHeads * problem.keys);
    arguments[P::norm_head_stride] = narrow(problem.keys);
    arguments[P::mask_batch_stride] = problem.maskStride(0);
    arguments[P::mask_head_stride] = problem.maskStride(1);
    arguments[P::mask_row_stride] = problem.maskStride(2);
    arguments[P::mask_key_stride] = problem.maskStride(3);
    return arguments;
}

} // namespace

bool Attention::takes(Kernel const& kernel, IoDescription const& io) const
{
    AttentionProblem const problem(io);
    bool const isMultiple
        = problem.features % kALIGNMENT == 0 && problem.valueFeatures % kALIGNMENT == 0;
    bool const hasOptions = kernel.constant("OPTIONS") != 0;
    int64_t const features = std::max(problem.features, problem.valueFeatures);
    return kernel.type == io.type && features <= kernel.constant("BLOCK_SIZE_FEAT")
           && isTight(kernel, features) && (isMultiple || !isAligned(kernel))
           && (isPlain() || hasOptions)
           && (hasMask(kernel) || product(problem.mask, 0, problem.mask.nbDims) == 1);
}

Kernel const& Attention::choose(
    std::vector<Kernel const*> const& candidates, IoDescription const& io, int32_t processors) const
{
    // The rule of plan_attention in nmn_export/kernels/attention/plan.py. tests/test_attention.cpp
    // and tests/kernels/test_attention.py expect the same choices of both.
    Kernel const* large = nullptr;
    Kernel const* small = nullptr;
    for (Kernel const* const kernel : candidates)
    {
        Kernel const*& best = isForFewRows(*kernel) ? small : large;
        best = best == nullptr || cost(*kernel) < cost(*best) ? kernel : best;
    }
    if (small == nullptr && large == nullptr)
    {
        throw refusal(
            "there is no kernel of YatAttention for queries of ", toString(io.inputs[kQUERIES]));
    }
    if (small == nullptr || large == nullptr)
    {
        return small == nullptr ? *large : *small;
    }
    AttentionProblem const problem(io);
    bool const hasManyRows = problem.queries * problem.group > kFEW_ROWS;
    return hasManyRows && kFILLING * problem.tiles(*large) >= processors ? *large : *small;
}

Steps Attention::steps(Kernel const& main, IoDescription const& io) const
{
    Steps steps;
    steps.norms = takesNorms(main) ? std::string("row_norm_") + nameOf(io.type) : "";
    return steps;
}

size_t Attention::workspaceSize(Kernel const& main, IoDescription const& io) const
{
    AttentionProblem const problem(io);
    int64_t const tiles = problem.tiles(main);
    int64_t const slots = std::min(kMOST_SLOTS, multiply(tiles, kMOST_KEY_PARTS));
    Workspace workspace = Workspace::measure();
    Scratch const scratch(main, problem, slots, std::min(tiles, kMOST_SLOTS), workspace);
    return workspace.size();
}

//! Set the numbers that `Options.of` in nmn_export/kernels/attention/options.py returns.
void Attention::setOptions(Arguments& arguments) const
{
    using P = Parameter;
    bool const hasGuard = mPower > 0.F && mGuard > 0.F;
    bool const isWhole = std::floor(mPower) == mPower;
    arguments[P::norm_scale] = mScaling.normScale;
    arguments[P::floor] = mScaling.floor;
    arguments[P::mask_scale] = mMaskScale;
    arguments[P::spherical] = static_cast<int32_t>(mIsSpherical);
    arguments[P::epsilon] = mScaling.epsilon;
    arguments[P::sign] = mScaling.negative ? -1.F : 1.F;
    arguments[P::power] = mPower;
    arguments[P::negative_factor] = !isWhole                        ? std::nanf("")
                                    : std::fmod(mPower, 2.F) == 0.F ? 1.F
                                                                    : -1.F;
    arguments[P::start_exponent] = hasGuard ? std::log2(mGuard) : kLOWEST_EXPONENT;
    arguments[P::start_sum] = hasGuard ? 1.F : 0.F;
}

void Attention::enqueue(IoDescription const& io, LoadedSteps const& steps, int32_t processors,
    void const* const* inputs, void* output, void* workspaceBase, CUstream stream) const
{
    AttentionProblem const problem(io);
    Kernel const& kernel = *steps.main.kernel;
    int64_t const tiles = problem.tiles(kernel);
    if (tiles == 0 || problem.valueFeatures == 0)
    {
        return;
    }
    int64_t const parts = nbParts(kernel, problem, processors);
    Workspace workspace(workspaceBase);
    Scratch const scratch(kernel, problem, parts > 1 ? tiles * parts : 0, tiles, workspace);
    int64_t const keyRows = problem.batch * problem.keyHeads * problem.keys;
    if (takesNorms(kernel) && keyRows > 0)
    {
        launchNorms(steps.norms, {inputs[kKEYS], keyRows, problem.features, problem.features},
            scratch.norms, stream);
    }
    if (parts > 1)
    {
        Driver const& driver = Driver::get();
        driver.check(driver.cuMemsetD32Async(
                         reinterpret_cast<CUdeviceptr>(scratch.arrivals), 0, tiles, stream),
            "cuMemsetD32Async");
    }
    Arguments arguments = argumentsOf(problem, scratch, inputs, output);
    arguments[Parameter::causal_offset]
        = static_cast<int32_t>(mIsCausal ? problem.keys - problem.queries : problem.keys);
    setOptions(arguments);
    launch(kernel, steps.main.function, {tiles, parts}, arguments, stream);
}

} // namespace nmn::plugin
