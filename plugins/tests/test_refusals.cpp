//! What comes of bad requests: one line, and nothing else.

#include "samples.h"
#include "tests.h"

#include <limits>

namespace nmn::plugin::test
{
namespace
{

using nvinfer1::DataType;
using nvinfer1::TensorRTPhase;

void testBadSizes(Library& library, Report& report)
{
    Plugin dense = create(library, "YatDense", denseFields());
    Plugin conv = create(library, "YatConv", convFields());
    auto const refuses = [&](Plugin& plugin, std::vector<Tensor> const& inputs, char const* message)
    {
        report.check(outputSizes(plugin, inputs).empty(), std::string("refused: ") + message);
        report.says(library, message);
    };
    refuses(dense, raw(DataType::kFLOAT, {2, 23}, {40, 24}), "as many features");
    refuses(dense, raw(DataType::kFLOAT, {2, 24}, {40}), "a weight of [N, K]");
    refuses(dense, {{DataType::kFLOAT, {2, 24}}, {DataType::kFLOAT, {40, 24}}}, "takes 3 inputs");
    refuses(
        conv, raw(DataType::kFLOAT, {2, 16, 9}, {32, 16, 3, 3}), "takes an input of [B, C, *S]");
    refuses(conv, raw(DataType::kFLOAT, {2, 16, 9, 2}, {32, 16, 3, 3}), "at least as large");

    auto tensors = describe(raw(DataType::kFLOAT, {2, 17, 9, 10}, {32, 16, 3, 3}));
    tensors.push_back(describe({{DataType::kFLOAT, {2, 32, 5, 8}}})[0]);
    report.check(conv.build->configurePlugin(tensors.data(), 3, &tensors[3], 1) != 0,
        "channels that the filters do not have");
    report.says(library, "filters over those of one");

    auto huge = describe(raw(DataType::kHALF, {1 << 20, 4096}, {16, 4096}));
    huge.push_back(describe({{DataType::kHALF, {1 << 20, 16}}})[0]);
    report.check(dense.build->configurePlugin(huge.data(), 3, &huge[3], 1) != 0, "a huge input");
    report.says(library, "fewer than 2^31 elements");

    DataType const mixed[] = {DataType::kHALF, DataType::kFLOAT, DataType::kHALF};
    DataType output{};
    report.check(dense.build->getOutputDataTypes(&output, 1, mixed, 3) != 0, "mixed types");
    report.says(library, "of the input's type");
}

void testBadFields(Library& library, Report& report)
{
    auto const refuses = [&](char const* op, Fields const& fields, char const* message)
    {
        report.check(!create(library, op, fields), std::string("refused: ") + message);
        report.says(library, message);
    };
    float const infinity = std::numeric_limits<float>::infinity();
    float const nan = std::numeric_limits<float>::quiet_NaN();
    refuses("YatDense", denseFields(0.F), "epsilon must be positive");
    refuses("YatDense", denseFields(nan), "epsilon must be positive");
    refuses("YatDense", denseFields(infinity), "epsilon must be positive");
    refuses("YatDense", denseFields(1.F, 1e30F), "alpha must be 0");
    refuses("YatDense", denseFields(1.F, nan), "alpha must be 0");
    Fields strange = denseFields();
    strange.number("beta", 1.F);
    refuses("YatDense", strange, "field 'beta' is not known");
    Fields typed;
    typed.integers("epsilon", {1});
    refuses("YatDense", typed, "field 'epsilon' has an unexpected type");
    Fields many;
    many.integers("spherical", {0, 1});
    refuses("YatDense", many, "field 'spherical' must be one number");
    refuses("YatConv", denseFields(), "field 'spherical' is not known");
    refuses("YatConv", Fields(), "field 'kernel_shape' is missing");
    refuses("YatConv", convFields({3, 3}, {1}), "one to three axes");
    refuses("YatConv",
        convFields({1, 1, 1, 1}, {1, 1, 1, 1}, {0, 0, 0, 0, 0, 0, 0, 0}, {1, 1, 1, 1}),
        "one to three axes");
    refuses("YatConv", convFields({}, {}, {}, {}), "one to three axes");
    refuses("YatConv", convFields({3, 3}, {0, 1}), "strides and dilations of at least 1");
    refuses("YatConv", convFields({3, 3}, {1, 1}, {-1, 0, 0, 0}), "pads of at least 0");
    refuses("YatConv", convFields({3, 3}, {1, 1}, {0, 0, 0, 0}, {1, 1}, 0), "at least one group");
    auto* const creator = library.creator("YatDense");
    report.check(!creator->createPlugin("YatDense", nullptr, TensorRTPhase::kBUILD), "no fields");
    report.says(library, "got none");
    report.check(static_cast<bool>(create(library, "YatDense", Fields())), "defaults");
}

//! Enqueue where it cannot be: before shapes are set, and without a device.
void testEnqueueRefusal(Library& library, Report& report)
{
    Plugin plugin = create(library, "YatDense", denseFields());
    auto const tensors = describe(raw(DataType::kFLOAT, {2, 24}, {40, 24}));
    auto const output = describe({{DataType::kFLOAT, {2, 40}}});
    std::vector<nvinfer1::PluginTensorDesc> inputs;
    for (auto const& tensor : tensors)
    {
        inputs.push_back(tensor.desc);
    }
    void const* const addresses[] = {nullptr, nullptr, nullptr};
    void* const results[] = {nullptr};
    auto const enqueue = [&]
    {
        return plugin.runtime->enqueue(
            inputs.data(), &output[0].desc, addresses, results, nullptr, nullptr);
    };
    report.check(enqueue() != 0, "no enqueue before shapes are set");
    report.says(library, "no shapes were set");
    if (!report.hasDevice)
    {
        report.check(plugin.runtime->onShapeChange(inputs.data(), 3, &output[0].desc, 1) == 0,
            "shapes can be set without a device");
        report.check(enqueue() != 0, "no enqueue without a device");
        report.says(library, "needs an NVIDIA GPU and its driver");
    }
    inputs[0].dims.d[1] = 23;
    report.check(plugin.runtime->onShapeChange(inputs.data(), 3, &output[0].desc, 1) != 0,
        "shapes that do not fit");
    report.says(library, "as many features");
}

} // namespace

void testRefusals(Library& library, Report& report)
{
    testBadSizes(library, report);
    testBadFields(library, report);
    testEnqueueRefusal(library, report);
}

} // namespace nmn::plugin::test
