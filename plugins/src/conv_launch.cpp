//! YatConv on a GPU: choice and launch of the kernels, also for YatConvTranspose.

#include "conv_problem.h"
#include "log.h"
#include "norms.h"

#include <tuple>

namespace nmn::plugin
{
//! Addresses in the scratch memory of a layer.
struct Conv::Scratch
{
    Weights weights;
    void* pixels{nullptr};
    float* norms;

    Scratch(Problem const& problem, IoDescription const& io, void const* const* inputs,
        Workspace& workspace)
        : weights(io, problem.weight, false, inputs, workspace)
    {
        if (!io.channelsLast)
        {
            int64_t const elements = problem.pixels() * problem.group * problem.features;
            pixels = workspace.takeBytes(elements * io.itemSize());
        }
        norms = workspace.take<float>(problem.pixels() * problem.group);
    }
};

bool Conv::takes(Kernel const& kernel, IoDescription const& io) const
{
    Problem const problem(*this, io);
    bool const fits = io.channelsLast && rank() == 2 && problem.isAligned()
                      && problem.features % kernel.constant("BLOCK_SIZE_K") == 0;
    return kernel.type == io.type && kernel.constant("PLANES") == io.planes()
           && (kernel.constant("NEGATIVE") != 0) == mScaling.negative
           && (fits || kernel.constant("EVEN") == 0);
}

Kernel const& Conv::choose(
    std::vector<Kernel const*> const& candidates, IoDescription const& io, int32_t processors) const
{
    Problem const problem(*this, io);
    // Large tiles if they fill the GPU, narrow ones for few filters, and long steps. plan_conv in
    // nmn_export/kernels/conv/images.py is similar, but chooses among more tiles.
    auto const rank = [&](Kernel const* kernel)
    {
        int32_t const n = kernel->constant("BLOCK_SIZE_N");
        bool const isLarge = kernel->constant("BLOCK_SIZE_M") > n || n > kFEW_FILTERS;
        bool const fillsDevice = problem.tiles(*kernel) * problem.group >= processors;
        bool const isFitting = (n <= kFEW_FILTERS) == (problem.filters <= kFEW_FILTERS);
        int32_t const shape = !isLarge ? 1 : !fillsDevice ? 0 : isFitting ? 3 : 2;
        return std::make_tuple(kernel->constant("EVEN"), shape, kernel->constant("BLOCK_SIZE_K"));
    };
    if (candidates.empty())
    {
        throw refusal("there is no kernel of ", mName, " for an input of ", toString(io.x()));
    }
    return **std::max_element(candidates.begin(), candidates.end(),
        [&](Kernel const* a, Kernel const* b) { return rank(a) < rank(b); });
}

Steps Conv::steps(Kernel const& /*main*/, IoDescription const& io) const
{
    std::string const type = nameOf(io.type);
    Steps steps;
    steps.weights = io.prepared() ? "" : "prepare_weight_" + type;
    (io.channelsLast ? steps.norms : steps.pixels)
        = (io.channelsLast ? "row_norm_" : "pack_pixels_") + type;
    return steps;
}

size_t Conv::workspaceSize(Kernel const& /*main*/, IoDescription const& io) const
{
    Workspace workspace = Workspace::measure();
    Scratch const scratch(Problem(*this, io), io, nullptr, workspace);
    return workspace.size();
}

//! Convert the input to channels last and compute the norms of its pixels.
void Conv::launchPixels(Loaded const& kernel, Problem const& problem, void const* input,
    Scratch const& scratch, CUstream stream)
{
    Arguments arguments;
    arguments[Parameter::input_pointer] = input;
    arguments[Parameter::output_pointer] = scratch.pixels;
    arguments[Parameter::norm_pointer] = scratch.norms;
    arguments[Parameter::pixel_dim] = static_cast<int32_t>(volume(problem.size));
    arguments[Parameter::feat_dim] = static_cast<int32_t>(problem.features);
    arguments[Parameter::padded_feat_dim] = static_cast<int32_t>(problem.features);
    int32_t const block = kernel.kernel->constant("BLOCK_SIZE_PIXEL");
    Grid const grid{problem.batch * ceilDiv(volume(problem.size), block), problem.group};
    launch(*kernel.kernel, kernel.function, grid, arguments, stream);
}

void Conv::setGeometry(Arguments& arguments, Problem const& problem, bool isChannelsLast) const
{
    using P = Parameter;
    setAxes(arguments, {P::depth_dim, P::height_dim, P::width_dim}, problem.size);
    setAxes(arguments, {P::out_depth_dim, P::out_height_dim, P::out_width_dim}, problem.outSize);
    setAxes(arguments, {P::kernel_depth, P::kernel_height, P::kernel_width}, problem.kernel);
    setAxes(arguments, {P::depth_stride, P::height_stride, P::width_stride},
        spread(mStrides, rank(), 1));
    setAxes(arguments, {P::depth_pad, P::height_pad, P::width_pad}, spread(mPads, rank(), 0));
    setAxes(arguments, {P::depth_dilation, P::height_dilation, P::width_dilation},
        spread(mDilations, rank(), 1));
    int64_t const outPixels = volume(problem.outSize);
    int64_t const outChannels = problem.group * problem.filters;
    arguments[P::input_pixel_stride] = static_cast<int32_t>(problem.group * problem.features);
    arguments[P::norm_pixel_stride] = static_cast<int32_t>(problem.group);
    arguments[P::output_batch_stride] = static_cast<int32_t>(outChannels * outPixels);
    arguments[P::output_feat_stride] = static_cast<int32_t>(isChannelsLast ? 1 : outPixels);
    arguments[P::output_pixel_stride] = static_cast<int32_t>(isChannelsLast ? outChannels : 1);
}

void Conv::enqueue(IoDescription const& io, LoadedSteps const& steps, int32_t /*processors*/,
    void const* const* inputs, void* output, void* workspaceBase, CUstream stream) const
{
    Problem const problem(*this, io);
    if (problem.patches() == 0)
    {
        return;
    }
    Workspace workspace(workspaceBase);
    Scratch const scratch(problem, io, inputs, workspace);
    WeightShape const weight = problem.weight;
    if (!io.prepared())
    {
        prepareWeights(steps.weights, io, weight, mScaling, false, inputs, scratch.weights, stream);
    }
    // An image without pixels may still have patches, which are all padding.
    bool const hasPixels = problem.pixels() > 0;
    if (hasPixels && io.channelsLast)
    {
        launchNorms(steps.norms,
            {inputs[kX], problem.pixels() * problem.group, problem.features, problem.features},
            scratch.norms, stream);
    }
    if (hasPixels && !io.channelsLast)
    {
        launchPixels(steps.pixels, problem, inputs[kX], scratch, stream);
    }

    using P = Parameter;
    Arguments arguments;
    arguments[P::input_pointer] = io.channelsLast ? inputs[kX] : scratch.pixels;
    arguments[P::norm_pointer] = scratch.norms;
    arguments[P::weight_pointer] = scratch.weights.planes;
    arguments[P::column_term_pointer] = scratch.weights.columnTerm;
    arguments[P::bias_pointer] = scratch.weights.columnBias;
    arguments[P::output_pointer] = output;
    arguments[P::patch_dim] = static_cast<int32_t>(problem.phasePatches());
    arguments[P::in_feat_dim] = static_cast<int32_t>(problem.features);
    arguments[P::out_feat_dim] = static_cast<int32_t>(problem.filters);
    setGeometry(arguments, problem, io.channelsLast);
    arguments[P::weight_plane_stride] = static_cast<int32_t>(weight.planeStride());
    arguments[P::weight_out_feat_stride] = static_cast<int32_t>(weight.rowStride());
    arguments[P::norm_scale] = mScaling.normScale;
    arguments[P::floor] = mScaling.floor;
    Kernel const& main = *steps.main.kernel;
    launch(main, steps.main.function, {problem.tiles(main), problem.group}, arguments, stream);
}

} // namespace nmn::plugin
