//! YatConv on a device: which kernels, with what arguments.

#include "conv_problem.h"
#include "log.h"
#include "norms.h"

#include <tuple>

namespace nmn::plugin
{
namespace
{

//! Filters of a group up to which the narrow tile is chosen.
constexpr int64_t kFEW_FILTERS = 64;

void setAxes(Arguments& arguments, std::array<Parameter, 3> const& parameters, Axes const& axes)
{
    for (size_t i = 0; i < axes.size(); ++i)
    {
        arguments[parameters[i]] = static_cast<int32_t>(axes[i]);
    }
}

} // namespace

//! Where the scratch memory of a call is.
struct Conv::Scratch
{
    Weights weights;
    void* pixels{nullptr};
    float* norms;

    Scratch(
        Problem const& problem, Call const& call, void const* const* inputs, Workspace& workspace)
        : weights(call, problem.weight(), false, inputs, workspace)
    {
        if (!call.channelsLast)
        {
            int64_t const elements = problem.pixels() * problem.group * problem.features;
            pixels = workspace.takeBytes(elements * call.itemSize());
        }
        norms = workspace.take<float>(problem.pixels() * problem.group);
    }
};

bool Conv::takes(Kernel const& kernel, Call const& call) const
{
    Problem const problem(*this, call);
    bool const fits = call.channelsLast && rank() == 2 && problem.isAligned()
                      && problem.features % kernel.constant("BLOCK_SIZE_K") == 0;
    return kernel.type == call.type && kernel.constant("PLANES") == call.planes()
           && (kernel.constant("NEGATIVE") != 0) == mScaling.negative
           && (fits || kernel.constant("EVEN") == 0);
}

Kernel const& Conv::choose(
    std::vector<Kernel const*> const& candidates, Call const& call, int32_t processors) const
{
    Problem const problem(*this, call);
    // Much as plan_conv in nmn_export/kernels/conv/launch.py does: large tiles if they fill the device, as
    // wide as there are filters, and long steps.
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
        throw refusal("there is no kernel of YatConv for an input of ", toString(call.x));
    }
    return **std::max_element(candidates.begin(), candidates.end(),
        [&](Kernel const* a, Kernel const* b) { return rank(a) < rank(b); });
}

Steps Conv::steps(Kernel const& /*main*/, Call const& call) const
{
    std::string const type = nameOf(call.type);
    Steps steps;
    steps.weights = call.prepared ? "" : "prepare_weight_" + type;
    (call.channelsLast ? steps.norms : steps.pixels)
        = (call.channelsLast ? "row_norm_" : "pack_pixels_") + type;
    return steps;
}

size_t Conv::workspaceSize(Kernel const& /*main*/, Call const& call) const
{
    Workspace workspace = Workspace::measure();
    Scratch const scratch(Problem(*this, call), call, nullptr, workspace);
    return workspace.size();
}

//! Bring the input to channels last and take the norms of its pixels, in the stream.
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

//! Say where patches lie in the input, and their results in the output.
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

void Conv::enqueue(Call const& call, LoadedSteps const& steps, int32_t /*processors*/,
    void const* const* inputs, void* output, void* workspaceBase, CUstream stream) const
{
    Problem const problem(*this, call);
    if (problem.patches() == 0)
    {
        return;
    }
    Workspace workspace(workspaceBase);
    Scratch const scratch(problem, call, inputs, workspace);
    WeightShape const weight = problem.weight();
    if (!call.prepared)
    {
        prepareWeights(
            steps.weights, call, weight, mScaling, false, inputs, scratch.weights, stream);
    }
    // An image without pixels may still have patches, all of them padding.
    bool const hasPixels = problem.pixels() > 0;
    if (hasPixels && call.channelsLast)
    {
        launchNorms(steps.norms,
            {inputs[kX], problem.pixels() * problem.group, problem.features, problem.features},
            scratch.norms, stream);
    }
    if (hasPixels && !call.channelsLast)
    {
        launchPixels(steps.pixels, problem, inputs[kX], scratch, stream);
    }

    using P = Parameter;
    Arguments arguments;
    arguments[P::input_pointer] = call.channelsLast ? inputs[kX] : scratch.pixels;
    arguments[P::norm_pointer] = scratch.norms;
    arguments[P::weight_pointer] = scratch.weights.planes;
    arguments[P::column_term_pointer] = scratch.weights.columnTerm;
    arguments[P::bias_pointer] = scratch.weights.columnBias;
    arguments[P::output_pointer] = output;
    arguments[P::patch_dim] = static_cast<int32_t>(problem.patches());
    arguments[P::in_feat_dim] = static_cast<int32_t>(problem.features);
    arguments[P::out_feat_dim] = static_cast<int32_t>(problem.filters);
    setGeometry(arguments, problem, call.channelsLast);
    arguments[P::weight_plane_stride] = static_cast<int32_t>(weight.planeStride());
    arguments[P::weight_out_feat_stride] = static_cast<int32_t>(weight.rowStride());
    arguments[P::norm_scale] = mScaling.normScale;
    arguments[P::floor] = mScaling.floor;
    Kernel const& main = *steps.main.kernel;
    launch(main, steps.main.function, {problem.tiles(main), problem.group}, arguments, stream);
}

} // namespace nmn::plugin
