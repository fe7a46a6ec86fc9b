//! YatDense on a GPU: choice and launch of the kernels.

#include "dense.h"
#include "dense_problem.h"
#include "log.h"
#include "norms.h"

#include <algorithm>

namespace nmn::plugin
{
namespace
{

//! Maximum number of parts of all tiles together. It bounds the scratch memory, and is at least
//! four per multiprocessor of current GPUs.
constexpr int64_t kMOST_SLOTS = 1024;

//! Rows of the smallest tile of the split-K kernel.
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

//! Return the number of parts of a tile's features on a GPU of `processors` multiprocessors.
int64_t nbParts(Kernel const& kernel, DenseProblem const& problem, int32_t processors)
{
    int64_t const tiles = problem.tiles(kernel);
    int64_t const wanted = ceilDiv(kPROGRAMS_PER_PROCESSOR * processors, tiles);
    int64_t const most = ceilDiv(problem.features, 2 * kernel.constant("BLOCK_SIZE_K"));
    int64_t const available = kMOST_SLOTS / tiles;
    return std::max<int64_t>(1, std::min({wanted, most, kMOST_PARTS, available}));
}

//! Addresses in the scratch memory of a layer.
struct Scratch
{
    Weights weights;
    float* norms{nullptr};
    float* partial{nullptr};
    float* partialNorms{nullptr};
    int32_t* arrivals{nullptr};

    //! \param slots Total number of parts of all tiles, or 0 if every tile has one part.
    Scratch(Kernel const& kernel, IoDescription const& io, bool spherical, int64_t slots,
        void const* const* inputs, Workspace& workspace)
        : weights(io, DenseProblem(io).weight(), spherical, inputs, workspace)
    {
        if (takesNorms(kernel))
        {
            norms = workspace.take<float>(DenseProblem(io).batch);
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

//! Return the arguments of all kernels except α and ε. A kernel uses those that it has.
Arguments argumentsOf(DenseProblem const& problem, IoDescription const& io, Scratch const& scratch,
    void const* x, void* output)
{
    WeightShape const weight = problem.weight();
    Arguments arguments;
    Matrix const input{x, problem.batch, problem.features, problem.features};
    Matrix const planes{
        scratch.weights.planes, io.planes() * weight.rows, weight.rowStride(), weight.rowStride()};
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

bool Dense::takes(Kernel const& kernel, IoDescription const& io) const
{
    DenseProblem const problem(io);
    bool const isEven = kernel.constant("EVEN") != 0;
    bool const fits = problem.features % kernel.constant("BLOCK_SIZE_K") == 0
                      && problem.outputs % kALIGNMENT == 0;
    return kernel.type == io.type && kernel.constant("PLANES") == io.planes()
           && (kernel.constant("SPHERICAL") != 0) == mSpherical
           && (kernel.constant("NEGATIVE") != 0) == mScaling.negative && (fits || !isEven);
}

Kernel const& Dense::choose(
    std::vector<Kernel const*> const& candidates, IoDescription const& io, int32_t processors) const
{
    DenseProblem const problem(io);
    // The rule of plan_dense in nmn_export/kernels/dense/launch.py. tests/test_contract.cpp and
    // tests/kernels/test_dense.py expect the same choices of both.
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
        throw refusal("there is no kernel of YatDense for an input of ", toString(io.x()));
    }
    return **std::max_element(candidates.begin(), candidates.end(),
        [&](Kernel const* a, Kernel const* b) { return rank(a) < rank(b); });
}

Steps Dense::steps(Kernel const& main, IoDescription const& io) const
{
    std::string const type = nameOf(io.type);
    Steps steps;
    steps.weights = io.prepared() ? "" : "prepare_weight_" + type;
    if (takesNorms(main))
    {
        bool const isAligned = DenseProblem(io).features % kALIGNMENT == 0;
        steps.norms = "row_norm_" + type + (isAligned ? "" : "_general");
    }
    return steps;
}

size_t Dense::workspaceSize(Kernel const& main, IoDescription const& io) const
{
    int64_t const slots = std::min(kMOST_SLOTS, DenseProblem(io).tiles(main) * kMOST_PARTS);
    Workspace workspace = Workspace::measure();
    Scratch const scratch(main, io, mSpherical, slots, nullptr, workspace);
    return workspace.size();
}

void Dense::enqueue(IoDescription const& io, LoadedSteps const& steps, int32_t processors,
    void const* const* inputs, void* output, void* workspaceBase, CUstream stream) const
{
    DenseProblem const problem(io);
    if (problem.batch == 0)
    {
        return;
    }
    Kernel const& kernel = *steps.main.kernel;
    int64_t const tiles = problem.tiles(kernel);
    int64_t const parts = isSplit(kernel) ? nbParts(kernel, problem, processors) : 1;
    Workspace workspace(workspaceBase);
    Scratch const scratch(kernel, io, mSpherical, parts > 1 ? tiles * parts : 0, inputs, workspace);
    WeightShape const weight = problem.weight();
    if (!io.prepared())
    {
        prepareWeights(
            steps.weights, io, weight, mScaling, mSpherical, inputs, scratch.weights, stream);
    }
    if (takesNorms(kernel))
    {
        launchNorms(steps.norms, {inputs[kX], problem.batch, problem.features, problem.features},
            scratch.norms, stream);
    }

    Arguments arguments = argumentsOf(problem, io, scratch, inputs[kX], output);
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
    int64_t const programs = std::min(tiles, kPROGRAMS_PER_PROCESSOR * processors);
    launch(kernel, steps.main.function, {programs}, arguments, stream);
}

} // namespace nmn::plugin
