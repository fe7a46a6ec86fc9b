//! YatDense on a device: which kernels, with what arguments.

#include "dense.h"
#include "dense_problem.h"
#include "log.h"
#include "norms.h"

#include <algorithm>

namespace nmn::plugin
{
namespace
{

//! Programs of the persistent kernel for each multiprocessor: the epilogue of one overlaps the
//! products of the other.
constexpr int32_t kPROGRAMS_PER_PROCESSOR = 2;

//! Parts of a tile's features that are computed by programs of their own, at most.
constexpr int64_t kMOST_PARTS = 16;

//! And of all tiles together, so that scratch memory has a bound: four for each multiprocessor of
//! any GPU there is.
constexpr int64_t kMOST_SLOTS = 1024;

//! Rows of the largest input for which the smallest tile is chosen.
constexpr int64_t kFEW_ROWS = 16;

bool isSplit(Kernel const& kernel)
{
    return kernel.takes(Parameter::partial_pointer);
}

bool isRowStationary(Kernel const& kernel)
{
    return kernel.constant("ROW_STATIONARY") != 0;
}

bool takesNorms(Kernel const& kernel)
{
    return kernel.takes(Parameter::norm_pointer);
}

//! Parts of the features, for a device of so many multiprocessors.
int64_t nbParts(Kernel const& kernel, DenseProblem const& problem, int32_t processors)
{
    int64_t const tiles = problem.tiles(kernel);
    int64_t const wanted = ceilDiv(int64_t{kPROGRAMS_PER_PROCESSOR} * processors, tiles);
    int64_t const most = ceilDiv(problem.features, 2 * kernel.constant("BLOCK_SIZE_K"));
    int64_t const room = kMOST_SLOTS / tiles;
    return std::max<int64_t>(1, std::min({wanted, most, kMOST_PARTS, room}));
}

//! Where the scratch memory of a call is.
struct Scratch
{
    Weights weights;
    float* norms{nullptr};
    float* partial{nullptr};
    float* partialNorms{nullptr};
    int32_t* arrivals{nullptr};

    //! \param slots Parts of all tiles together; 0 if no tile has several.
    Scratch(Kernel const& kernel, Call const& call, bool spherical, int64_t slots,
        void const* const* inputs, Workspace& workspace)
        : weights(call, DenseProblem(call).weight(), spherical, inputs, workspace)
    {
        if (takesNorms(kernel))
        {
            norms = workspace.take<float>(DenseProblem(call).batch);
        }
        if (isSplit(kernel))
        {
            int64_t const rows = kernel.constant("BLOCK_SIZE_M");
            partial = workspace.take<float>(slots * rows * kernel.constant("BLOCK_SIZE_N"));
            partialNorms = workspace.take<float>(slots * rows);
            arrivals = workspace.take<int32_t>(slots);
        }
    }
};

//! All that the kernels take, α and ε aside; each takes what it has parameters for.
Arguments argumentsOf(DenseProblem const& problem, Call const& call, Scratch const& scratch,
    void const* x, void* output)
{
    WeightShape const weight = problem.weight();
    Arguments arguments;
    Matrix const input{x, problem.batch, problem.features, problem.features};
    Matrix const planes{scratch.weights.planes, call.planes() * weight.rows, weight.rowStride(),
        weight.rowStride()};
    arguments[Parameter::input_source] = input;
    arguments[Parameter::input_pointer] = input.data;
    arguments[Parameter::norm_pointer] = scratch.norms;
    arguments[Parameter::weight_source] = planes;
    arguments[Parameter::weight_pointer] = planes.data;
    arguments[Parameter::column_term_pointer] = scratch.weights.columnTerm;
    arguments[Parameter::column_scale_pointer] = scratch.weights.columnScale;
    arguments[Parameter::bias_pointer] = scratch.weights.columnBias;
    arguments[Parameter::output_pointer] = output;
    arguments[Parameter::partial_pointer] = scratch.partial;
    arguments[Parameter::partial_norm_pointer] = scratch.partialNorms;
    arguments[Parameter::arrival_pointer] = scratch.arrivals;
    arguments[Parameter::batch_dim] = static_cast<int32_t>(problem.batch);
    arguments[Parameter::out_feat_dim] = static_cast<int32_t>(problem.outputs);
    arguments[Parameter::in_feat_dim] = static_cast<int32_t>(problem.features);
    arguments[Parameter::input_batch_stride] = static_cast<int32_t>(problem.features);
    arguments[Parameter::weight_out_feat_stride] = static_cast<int32_t>(weight.rowStride());
    arguments[Parameter::output_batch_stride] = static_cast<int32_t>(problem.outputs);
    return arguments;
}

} // namespace

bool Dense::takes(Kernel const& kernel, Call const& call) const
{
    DenseProblem const problem(call);
    bool const isEven = kernel.constant("EVEN") != 0;
    bool const fits = problem.features % kernel.constant("BLOCK_SIZE_K") == 0
                      && problem.outputs % kALIGNMENT == 0;
    return kernel.type == call.type && kernel.constant("PLANES") == call.planes()
           && (kernel.constant("SPHERICAL") != 0) == mSpherical
           && (kernel.constant("NEGATIVE") != 0) == mScaling.negative && (fits || !isEven);
}

Kernel const& Dense::choose(
    std::vector<Kernel const*> const& candidates, Call const& call, int32_t processors) const
{
    DenseProblem const problem(call);
    // As plan_dense in nmn_export/kernels/dense/launch.py does.
    auto const rank = [&](Kernel const* kernel)
    {
        bool const fillsDevice = !isSplit(*kernel) && kernel->constant("EVEN") != 0
                                 && problem.tiles(*kernel) >= processors;
        if (fillsDevice)
        {
            bool const manyRows = problem.rowBlocks(*kernel) >= processors;
            return isRowStationary(*kernel) == manyRows ? 4 : 3;
        }
        if (isSplit(*kernel))
        {
            bool const isSmall = kernel->constant("BLOCK_SIZE_M") <= kFEW_ROWS;
            return isSmall == (problem.batch <= kFEW_ROWS) ? 2 : 1;
        }
        return 0;
    };
    if (candidates.empty())
    {
        throw refusal("there is no kernel of YatDense for an input of ", toString(call.x));
    }
    return **std::max_element(candidates.begin(), candidates.end(),
        [&](Kernel const* a, Kernel const* b) { return rank(a) < rank(b); });
}

Steps Dense::steps(Kernel const& main, Call const& call) const
{
    std::string const type = nameOf(call.type);
    Steps steps;
    steps.weights = call.prepared ? "" : "prepare_weight_" + type;
    if (takesNorms(main))
    {
        bool const isAligned = DenseProblem(call).features % kALIGNMENT == 0;
        steps.norms = "row_norm_" + type + (isAligned ? "" : "_general");
    }
    return steps;
}

size_t Dense::workspaceSize(Kernel const& main, Call const& call) const
{
    int64_t const slots = std::min(kMOST_SLOTS, DenseProblem(call).tiles(main) * kMOST_PARTS);
    Workspace workspace = Workspace::measure();
    Scratch const scratch(main, call, mSpherical, slots, nullptr, workspace);
    return workspace.size();
}

void Dense::enqueue(Call const& call, LoadedSteps const& steps, int32_t processors,
    void const* const* inputs, void* output, void* workspaceBase, CUstream stream) const
{
    DenseProblem const problem(call);
    if (problem.batch == 0)
    {
        return;
    }
    Kernel const& kernel = *steps.main.kernel;
    int64_t const tiles = problem.tiles(kernel);
    int64_t const parts = isSplit(kernel) ? nbParts(kernel, problem, processors) : 1;
    Workspace workspace(workspaceBase);
    Scratch const scratch(
        kernel, call, mSpherical, parts > 1 ? tiles * parts : 0, inputs, workspace);
    WeightShape const weight = problem.weight();
    if (!call.prepared)
    {
        prepareWeights(
            steps.weights, call, weight, mScaling, mSpherical, inputs, scratch.weights, stream);
    }
    if (takesNorms(kernel))
    {
        launchNorms(steps.norms, {inputs[kX], problem.batch, problem.features, problem.features},
            scratch.norms, stream);
    }

    Arguments arguments = argumentsOf(problem, call, scratch, inputs[kX], output);
    arguments[Parameter::norm_scale] = mScaling.normScale;
    arguments[Parameter::floor] = mScaling.floor;
    if (isSplit(kernel))
    {
        if (parts > 1)
        {
            Driver const& driver = Driver::get();
            driver.check(driver.cuMemsetD32Async(
                             reinterpret_cast<CUdeviceptr>(scratch.arrivals), 0, tiles, stream),
                "cuMemsetD32Async");
        }
        launch(kernel, steps.main.function, {tiles, parts}, arguments, stream);
        return;
    }
    int64_t const programs = std::min(tiles, int64_t{kPROGRAMS_PER_PROCESSOR} * processors);
    launch(kernel, steps.main.function, {programs}, arguments, stream);
}

} // namespace nmn::plugin
