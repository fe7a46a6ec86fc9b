//! Tests that run kernels through the plugins and compare the results with bounds.

#include "case.h"
#include "device.h"
#include "samples.h"
#include "tests.h"

#include <algorithm>
#include <filesystem>

namespace nmn::plugin::test
{
namespace
{

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

//! Device memory of a case, in the formats that the plugin chose.
struct Memory
{
    std::vector<std::unique_ptr<Buffer>> inputs;
    Buffer output;
    Buffer workspace;
    std::vector<void const*> addresses;

    Memory(Case const& sample, bool isChannelsLast, size_t workspaceSize)
        : output(countOf(sample.output) * bytesOf(sample.output.type)), workspace(workspaceSize)
    {
        for (size_t i = 0; i < sample.inputs.size(); ++i)
        {
            bool const isMoved = i == 0 && isChannelsLast;
            inputs.push_back(std::make_unique<Buffer>(
                isMoved ? toChannelsLast(sample.inputs[i], sample.contents[i])
                        : sample.contents[i]));
            addresses.push_back(inputs.back()->data());
        }
    }
};

std::vector<PluginTensorDesc> settled(std::vector<DynamicPluginTensorDesc> const& tensors)
{
    std::vector<PluginTensorDesc> descriptions;
    std::transform(tensors.begin(), tensors.end(), std::back_inserter(descriptions),
        [](DynamicPluginTensorDesc const& tensor) { return tensor.desc; });
    return descriptions;
}

//! Return the index of an element that is not between its bounds, or -1.
int64_t firstWrong(Case const& sample, std::vector<float> const& values)
{
    for (size_t i = 0; i < values.size(); ++i)
    {
        if (!(sample.low[i] <= values[i] && values[i] <= sample.high[i]))
        {
            return static_cast<int64_t>(i);
        }
    }
    return -1;
}

//! Run a case with one kernel, twice: the second time over what the first left in the workspace.
void runTactic(Library& library, Device const& device, Case const& sample, Plugin& plugin,
    std::vector<DynamicPluginTensorDesc> const& tensors, Memory& memory, int32_t tactic,
    Report& report)
{
    std::string const what = sample.name + ", tactic " + std::to_string(tactic);
    auto const descriptions = settled(tensors);
    auto const nbInputs = static_cast<int32_t>(sample.inputs.size());
    PluginTensorDesc const* const outputDescription = &descriptions[nbInputs];
    // As an engine does: from fields, and attached to a context.
    Plugin made(library.creator(sample.op)->createPlugin(sample.op.c_str(),
        plugin.runtime->getFieldsToSerialize(), nvinfer1::TensorRTPhase::kRUNTIME));
    Plugin attached(made.runtime->attachToContext(nullptr));
    report.check(attached.runtime->setTactic(tactic) == 0, what + ": it can be set");
    report.check(
        attached.runtime->onShapeChange(descriptions.data(), nbInputs, outputDescription, 1) == 0,
        what + ": shapes can be set");
    std::vector<char> results[2];
    for (auto& result : results)
    {
        memory.output.clear();
        void* const outputs[] = {memory.output.data()};
        bool const isDone = attached.runtime->enqueue(descriptions.data(), outputDescription,
                                memory.addresses.data(), outputs, memory.workspace.data(),
                                reinterpret_cast<cudaStream_t>(device.stream()))
                            == 0;
        report.check(isDone, what + ": " + library.logger().take());
        if (!isDone)
        {
            return;
        }
        device.synchronize();
        result = memory.output.read();
    }
    report.check(results[0] == results[1], what + ": both runs give the same bits");
    report.check(memory.output.isMarginIntact(), what + ": nothing written behind the output");
    report.check(
        memory.workspace.isMarginIntact(), what + ": nothing written behind the workspace");
    bool const isChannelsLast = descriptions[0].format != TensorFormat::kLINEAR;
    auto const values = toFloat(sample.output.type,
        isChannelsLast ? toChannelsFirst(sample.output, results[0]) : results[0]);
    int64_t const wrong = firstWrong(sample, values);
    report.check(wrong < 0, wrong < 0 ? what
                                      : what + ": element " + std::to_string(wrong) + " is "
                                            + std::to_string(values[wrong]) + ", not in ["
                                            + std::to_string(sample.low[wrong]) + ", "
                                            + std::to_string(sample.high[wrong]) + "]");
}

//! Describe an engine for larger batches, too. The first `count` inputs share their batch, unless
//! they are one number for all.
void enlargeBatch(
    std::vector<DynamicPluginTensorDesc>& profile, std::vector<Tensor> const& inputs, int32_t count)
{
    for (int32_t i = 0; i < count; ++i)
    {
        Sizes const& sizes = inputs[i].sizes;
        if (sizes.size() > 1 && sizes[0] == inputs[0].sizes[0] && countOf(inputs[i]) != 1)
        {
            profile[i].max.d[0] *= 3;
        }
    }
}

void runCase(Library& library, Device const& device, Case const& sample, Report& report)
{
    Plugin plugin = create(library, sample.op, sample.fields);
    report.check(static_cast<bool>(plugin), sample.name + ": " + library.logger().take());
    if (!plugin)
    {
        return;
    }
    report.equal(outputSizes(plugin, sample.inputs), sample.output.sizes, sample.name + ": sizes");
    std::vector<Tensor> all = sample.inputs;
    all.push_back(sample.output);
    auto tensors = describe(all);
    auto const nbInputs = static_cast<int32_t>(sample.inputs.size());
    report.check(negotiate(plugin, tensors), sample.name + ": formats");
    auto profile = tensors;
    enlargeBatch(profile, sample.inputs, sample.op == "YatAttention" ? nbInputs : 1);
    plugin.build->configurePlugin(profile.data(), nbInputs, &profile[nbInputs], 1);
    size_t const workspaceSize
        = plugin.build->getWorkspaceSize(profile.data(), nbInputs, &profile[nbInputs], 1);
    std::vector<int32_t> tactics(plugin.build->getNbTactics() + 1);
    plugin.build->getValidTactics(&tactics[1], plugin.build->getNbTactics());
    report.check(tactics.size() > 1, sample.name + ": there is a kernel");
    Memory memory(sample, tensors[0].desc.format != TensorFormat::kLINEAR, workspaceSize);
    for (int32_t const tactic : tactics)
    {
        runTactic(library, device, sample, plugin, tensors, memory, tactic, report);
    }
}

std::vector<std::string> subfolders(std::string const& folder)
{
    std::vector<std::string> found;
    for (auto const& entry : std::filesystem::directory_iterator(folder))
    {
        found.push_back(entry.path().string());
    }
    std::sort(found.begin(), found.end());
    return found;
}

} // namespace

void testEnqueue(Library& library, std::string const& folder, Report& report)
{
    Device const device;
    auto const cases = subfolders(folder);
    report.check(!cases.empty(), "there are cases in " + folder);
    for (std::string const& path : cases)
    {
        runCase(library, device, Case(path), report);
    }
}

} // namespace nmn::plugin::test
