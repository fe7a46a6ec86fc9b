//! Tests that an invalid request causes an error of one line.

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

    Plugin upsampling
        = create(library, "YatConvTranspose", convTransposeFields({2, 2}, {1, 1}, {1, 1, 1, 1}));
    refuses(upsampling, rawTransposed(DataType::kFLOAT, {2, 16, 9}, {16, 32, 2, 2}),
        "YatConvTranspose over 2 axes takes an input of [B, C, *S]");
    refuses(upsampling, rawTransposed(DataType::kFLOAT, {2, 16, 9, 1}, {16, 32, 2, 2}),
        "YatConvTranspose takes an image at least as large");

    DataType const mixed[] = {DataType::kHALF, DataType::kFLOAT, DataType::kHALF};
    DataType output{};
    report.check(dense.build->getOutputDataTypes(&output, 1, mixed, 3) != 0, "mixed types");
    report.says(library, "of the input's type");
}

//! Sizes that are only known with a profile.
void testBadCalls(Library& library, Report& report)
{
    Plugin dense = create(library, "YatDense", denseFields());
    Plugin conv = create(library, "YatConv", convFields());
    auto const configure
        = [](Plugin& plugin, std::vector<Tensor> const& inputs, std::vector<Tensor> const& smallest)
    {
        auto tensors = describe(inputs);
        for (size_t i = 0; i < smallest.size(); ++i)
        {
            tensors[i].min = toDims(smallest[i].sizes);
        }
        // Only the number of outputs is used.
        return plugin.build->configurePlugin(
            tensors.data(), static_cast<int32_t>(tensors.size()), tensors.data(), 1);
    };
    auto const refuses = [&](Plugin& plugin, std::vector<Tensor> const& inputs, char const* message,
                             std::vector<Tensor> const& smallest = {})
    {
        report.check(configure(plugin, inputs, smallest) != 0, std::string("refused: ") + message);
        report.says(library, message);
        report.check(plugin.build->getNbTactics() == 0, "no tactics are left of a call before");
    };
    auto const half = DataType::kHALF;
    report.check(
        configure(dense, raw(half, {64, 112}, {32, 112}), raw(half, {1, 112}, {32, 112})) == 0,
        "a batch that varies");
    refuses(dense, raw(half, {64, 112}, {32, 112}), "must not vary within a profile",
        raw(half, {64, 100}, {32, 100}));
    refuses(dense, raw(half, {4, 64}, {0, 64}), "at least one row and one feature");
    refuses(dense, raw(half, {1 << 20, 4096}, {16, 4096}), "must be smaller than 2^31");
    int64_t const large = int64_t{1} << 33;
    refuses(dense, raw(half, {large, large, 64}, {16, 64}), "must be smaller than 2^31");
    refuses(dense, {{half, {4, 64}}, {half, {48, 64}}, {half, {1}}}, "each of the 48 rows");
    refuses(dense,
        {{half, {4, 64}}, {half, {1, 48, 64}}, {DataType::kFLOAT, {1}}, {DataType::kFLOAT, {48}}},
        "each of the 48 rows");
    refuses(dense,
        {{half, {4, 64}}, {half, {3, 48, 64}}, {DataType::kFLOAT, {48}}, {DataType::kFLOAT, {48}}},
        "2 or 3 planes if it is float32");
    refuses(conv, raw(half, {2, 17, 9, 10}, {32, 16, 3, 3}), "filters over those of one");
    refuses(conv, raw(half, {2, 16, 9, 10}, {32, 16, 1, 9}), "of its kernel's shape");
    refuses(conv, raw(half, {2, 16, 9, 10}, {32, 48, 3, 1}), "of its kernel's shape");
    refuses(conv, raw(half, {2, 16, 9, 10}, {0, 16, 3, 3}), "filters over those of one");
    refuses(conv, raw(half, {2, 16, 1 << 16, 1 << 16}, {32, 16, 3, 3}), "smaller than 2^31");
    int32_t const far = std::numeric_limits<int32_t>::max();
    Plugin padded
        = create(library, "YatConv", convFields({3, 3}, {far, far}, {far, far, far, far}, {1, 1}));
    refuses(padded, raw(half, {1, 16, 9, 10}, {32, 16, 3, 3}), "an axis of YatConv with its pads");
    Plugin upsampling = create(library, "YatConvTranspose", convTransposeFields());
    refuses(upsampling, rawTransposed(half, {2, 17, 9, 10}, {16, 32, 4, 4}),
        "filters over those of one, of its kernel's shape");
    refuses(
        upsampling, rawTransposed(half, {2, 16, 9, 10}, {16, 32, 4, 3}), "of its kernel's shape");
    refuses(upsampling, {{half, {2, 16, 9, 10}}, {half, {16, 32, 4, 4}}, {half, {16}}},
        "each of the 32 rows");
    refuses(upsampling, rawTransposed(half, {2, 16, 1 << 12, 1 << 13}, {16, 32, 4, 4}),
        "the output of YatConvTranspose must be smaller than 2^31");
    Plugin sparse = create(library, "YatConvTranspose",
        convTransposeFields({1, 1}, {1 << 16, 1}, {0, 0, 0, 0}, {1 << 15, 1}));
    refuses(sparse, rawTransposed(half, {1, 16, 1, 1}, {16, 32, 1, 1}),
        "stride · dilation of YatConvTranspose must be smaller than 2^31");
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
    refuses("YatConvTranspose", convFields(), "field 'output_padding' is missing");
    refuses("YatConvTranspose", convTransposeFields({4, 4}, {2}), "one to three axes");
    refuses("YatConvTranspose", convTransposeFields({4, 4}, {2, 2}, {1, 1, 1, 1}, {1, 1}, {1}),
        "got 1");
    refuses("YatConvTranspose", convTransposeFields({4, 4}, {2, 2}, {1, 1, 1, 1}, {1, 1}, {0, -1}),
        "an output padding of at least 0");
    auto* const creator = library.creator("YatDense");
    report.check(!creator->createPlugin("YatDense", nullptr, TensorRTPhase::kBUILD), "no fields");
    report.says(library, "got none");
    report.check(static_cast<bool>(create(library, "YatDense", Fields())), "defaults");
}

//! Enqueue before shapes are set, and without a device.
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
    report.says(library, "no supported shapes were set");
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
    report.check(enqueue() != 0, "no enqueue after shapes that do not fit");
    report.says(library, "no supported shapes were set");
}

} // namespace

void testRefusals(Library& library, Report& report)
{
    testBadSizes(library, report);
    testBadCalls(library, report);
    testBadFields(library, report);
    testEnqueueRefusal(library, report);
}

} // namespace nmn::plugin::test
