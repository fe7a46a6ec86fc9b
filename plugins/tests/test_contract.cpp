//! Tests of the parts of the plugin interface that need no GPU.

#include "samples.h"
#include "tests.h"

#include <cstring>

namespace nmn::plugin::test
{
namespace
{

using nvinfer1::DataType;
using nvinfer1::TensorFormat;
using nvinfer1::TensorRTPhase;

void testCreators(Library& library, Report& report)
{
    for (char const* const op : {"YatDense", "YatConv", "YatConvTranspose", "YatAttention"})
    {
        auto* const creator = library.creator(op);
        report.check(creator != nullptr, std::string("there is a creator of ") + op);
        if (creator == nullptr)
        {
            continue;
        }
        report.check(!std::strcmp(creator->getPluginNamespace(), "ai.nmn"), "its namespace");
        report.check(!std::strcmp(creator->getPluginVersion(), "1"), "its version");
        report.check(creator->getFieldNames()->nbFields > 2, "its fields");
        report.check(!std::strcmp(creator->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE"),
            "its interface");
    }
    report.check(library.creator("Relu") == nullptr, "there is no creator of Relu");
}

void testInterfaces(Library& library, Report& report)
{
    Plugin plugin = create(library, "YatDense", denseFields());
    report.check(plugin && plugin.core && plugin.build && plugin.runtime, "three interfaces");
    report.check(!std::strcmp(plugin.core->getPluginName(), "YatDense"), "the plugin's name");
    report.check(plugin.build->getNbOutputs() == 1, "one output");
    auto const unknown = static_cast<nvinfer1::PluginCapabilityType>(7);
    report.check(plugin.plugin->getCapabilityInterface(unknown) == nullptr, "no fourth interface");
    report.says(library, "does not know (number 7)");
    Plugin clone(plugin.plugin->clone());
    report.check(clone && clone.build != plugin.build, "a clone of its own");
    Plugin attached(plugin.runtime->attachToContext(nullptr));
    report.check(static_cast<bool>(attached), "a clone for a context");
    report.check(std::strcmp(plugin.build->getTimingCacheID(),
                     create(library, "YatDense", denseFields(2e-3F)).build->getTimingCacheID())
                     != 0,
        "timings of another epsilon are not shared");
}

void testOutputSizes(Library& library, Report& report)
{
    Plugin dense = create(library, "YatDense", denseFields());
    report.equal(outputSizes(dense, raw(DataType::kFLOAT, {-1, 7, 24}, {40, 24})), Sizes{-1, 7, 40},
        "dense output, dynamic batch");
    std::vector<Tensor> prepared{{DataType::kHALF, {5, 24}}, {DataType::kHALF, {1, 40, 32}},
        {DataType::kFLOAT, {40}}, {DataType::kFLOAT, {40}}};
    report.equal(outputSizes(dense, prepared), Sizes{5, 40}, "dense output, prepared");
    Plugin conv = create(library, "YatConv", convFields());
    report.equal(outputSizes(conv, raw(DataType::kHALF, {-1, 16, 9, 10}, {32, 16, 3, 3})),
        Sizes{-1, 32, 5, 8}, "convolution's output");
    report.equal(outputSizes(conv, raw(DataType::kHALF, {2, 16, -1, -1}, {32, 16, 3, 3})),
        Sizes{2, 32, -1, -1}, "convolution's output, dynamic size");
    Plugin line = create(library, "YatConv", convFields({5}, {1}, {2, 2}, {1}));
    report.equal(outputSizes(line, raw(DataType::kFLOAT, {3, 4, 11}, {6, 4, 5})), Sizes{3, 6, 11},
        "1-D convolution's output");
    Plugin upsampling = create(library, "YatConvTranspose", convTransposeFields());
    auto const half = DataType::kHALF;
    report.equal(outputSizes(upsampling, rawTransposed(half, {-1, 16, 9, 10}, {16, 32, 4, 4})),
        Sizes{-1, 32, 18, 20}, "transposed convolution's output");
    report.equal(outputSizes(upsampling, rawTransposed(half, {2, 16, -1, -1}, {16, 32, 4, 4})),
        Sizes{2, 32, -1, -1}, "transposed convolution's output, dynamic size");
    report.equal(outputSizes(upsampling, {{half, {2, 16, 9, 10}}, {half, {1, 32, 256}},
                                             {DataType::kFLOAT, {32}}, {DataType::kFLOAT, {32}}}),
        Sizes{2, 32, 18, 20}, "transposed convolution's output, prepared");
    Plugin padded = create(library, "YatConvTranspose",
        convTransposeFields({3, 2}, {2, 3}, {0, 1, 1, 0}, {2, 1}, {1, 0}, 2));
    report.equal(outputSizes(padded, rawTransposed(half, {2, 16, 5, 4}, {16, 8, 3, 2}, 2)),
        Sizes{2, 16, 13, 10}, "output with padding and groups");
    report.check(library.logger().take().empty(), "no message so far");
}

void testFormats(Library& library, Report& report)
{
    auto const formatOf = [&](Plugin& plugin, std::vector<Tensor> tensors, Sizes const& output)
    {
        tensors.push_back({tensors[0].type, output});
        auto descriptions = describe(tensors);
        bool const isTaken = negotiate(plugin, descriptions);
        report.check(isTaken && descriptions[0].desc.format == descriptions.back().desc.format
                         && descriptions[1].desc.format == TensorFormat::kLINEAR,
            "a format for input and output, and linear weights");
        return descriptions[0].desc.format;
    };
    Plugin conv = create(library, "YatConv", convFields());
    Plugin volume = create(
        library, "YatConv", convFields({1, 1, 1}, {1, 1, 1}, {0, 0, 0, 0, 0, 0}, {1, 1, 1}));
    Plugin line = create(library, "YatConv", convFields({5}, {1}, {2, 2}, {1}));
    Plugin dense = create(library, "YatDense", denseFields());
    auto const image = [&](DataType type, int64_t channels)
    {
        return formatOf(conv, raw(type, {2, channels, 9, 10}, {32, channels, 3, 3}), {2, 32, 5, 8});
    };
    report.check(image(DataType::kHALF, 16) == TensorFormat::kHWC8, "float16 images");
    report.check(image(DataType::kBF16, 64) == TensorFormat::kHWC8, "bfloat16 images");
    report.check(image(DataType::kFLOAT, 16) == TensorFormat::kHWC, "float32 images");
    report.check(image(DataType::kHALF, 3) == TensorFormat::kLINEAR, "three channels");
    report.check(formatOf(volume, raw(DataType::kHALF, {2, 16, 4, 5, 6}, {16, 16, 1, 1, 1}),
                     {2, 16, 4, 5, 6})
                     == TensorFormat::kDHWC8,
        "float16 volumes");
    report.check(formatOf(line, raw(DataType::kHALF, {2, 16, 11}, {16, 16, 5}), {2, 16, 11})
                     == TensorFormat::kLINEAR,
        "lines");
    Plugin upsampling = create(library, "YatConvTranspose", convTransposeFields());
    auto const upsampled = [&](int64_t outputs)
    {
        return formatOf(upsampling,
            rawTransposed(DataType::kHALF, {2, 16, 9, 10}, {16, outputs, 4, 4}),
            {2, outputs, 18, 20});
    };
    report.check(upsampled(32) == TensorFormat::kHWC8, "upsampled float16 images");
    report.check(upsampled(3) == TensorFormat::kLINEAR, "three channels of upsampled images");
    report.check(
        formatOf(dense, raw(DataType::kFLOAT, {2, 24}, {40, 24}), {2, 40}) == TensorFormat::kLINEAR,
        "matrices");

    auto wrong = describe(raw(DataType::kINT32, {2, 24}, {40, 24}));
    wrong.push_back(describe({{DataType::kINT32, {2, 40}}})[0]);
    report.check(!negotiate(dense, wrong), "no whole numbers");
    library.logger().take();
}

void testTactics(Library& library, Report& report)
{
    auto const tacticsOf = [](Plugin& plugin, std::vector<Tensor> tensors, Sizes const& output)
    {
        tensors.push_back({tensors[0].type, output});
        auto descriptions = describe(tensors);
        negotiate(plugin, descriptions);
        plugin.build->configurePlugin(descriptions.data(), 3, &descriptions[3], 1);
        std::vector<int32_t> tactics(plugin.build->getNbTactics());
        plugin.build->getValidTactics(tactics.data(), static_cast<int32_t>(tactics.size()));
        return tactics;
    };
    Plugin dense = create(library, "YatDense", denseFields());
    auto const even = tacticsOf(dense, raw(DataType::kHALF, {128, 128}, {64, 128}), {128, 64});
    auto const odd = tacticsOf(dense, raw(DataType::kHALF, {128, 100}, {64, 100}), {128, 64});
    report.check(even.size() > 3, "several kernels for aligned features");
    report.check(odd.size() == 1, "one kernel for others");
    auto const firstOf = [&](int64_t batch)
    { return tacticsOf(dense, raw(DataType::kHALF, {batch, 512}, {1024, 512}), {batch, 1024})[0]; };
    report.check(firstOf(1) == tacticOf("yat_dense_fp16_split_16x64"), "first for one row");
    report.check(firstOf(2048) == tacticOf("yat_dense_fp16_grouped"), "first for many rows");
    report.check(
        firstOf(1 << 16) == tacticOf("yat_dense_fp16_row_stationary"), "first for the most rows");
    Plugin negative = create(library, "YatDense", denseFields(1e-3F, -2.F));
    report.check(
        tacticsOf(negative, raw(DataType::kHALF, {8, 128}, {64, 128}), {8, 64}).size() == 1,
        "one kernel for a negative alpha");
    Plugin conv = create(library, "YatConv", convFields());
    auto const images = tacticsOf(
        conv, raw(DataType::kHALF, {64, 64, 56, 56}, {128, 64, 3, 3}), {64, 128, 28, 54});
    report.check(images[0] == tacticOf("yat_conv_fp16_128x128x64"), "first for many patches");
    report.check(conv.runtime->setTactic(even[0]) != 0, "a tactic of the other op cannot be set");
    report.says(library, "does not have");
    report.check(
        tacticsOf(conv, raw(DataType::kHALF, {2, 64, 9, 10}, {64, 64, 3, 3}), {2, 64, 5, 8}).size()
            > 3,
        "several kernels for images");
    Plugin upsampling = create(library, "YatConvTranspose", convTransposeFields());
    auto const phases = tacticsOf(upsampling,
        rawTransposed(DataType::kHALF, {4, 256, 16, 16}, {256, 128, 4, 4}), {4, 128, 32, 32});
    report.check(phases[0] == tacticOf("yat_conv_transpose_fp16_64x64x64"),
        "first for few patches in four phases");
    auto const more = tacticsOf(upsampling,
        rawTransposed(DataType::kHALF, {32, 256, 16, 16}, {256, 128, 4, 4}), {32, 128, 32, 32});
    report.check(more[0] == tacticOf("yat_conv_transpose_fp16_128x128x64"),
        "first if the tiles of all phases fill the device");
    for (int32_t const tactic : even)
    {
        report.check(tactic > 0 && dense.runtime->setTactic(tactic) == 0, "a tactic can be set");
    }
    report.check(dense.runtime->setTactic(0) == 0, "none can be set");
    report.check(dense.runtime->setTactic(12345) != 0, "an unknown one cannot");
    report.says(library, "does not have (tactic 12345)");
}

void testWorkspace(Library& library, Report& report)
{
    auto const sizeOf = [](Plugin& plugin, std::vector<Tensor> tensors, Sizes const& output)
    {
        auto const nbInputs = static_cast<int32_t>(tensors.size());
        tensors.push_back({tensors[0].type, output});
        auto descriptions = describe(tensors);
        negotiate(plugin, descriptions);
        return plugin.build->getWorkspaceSize(
            descriptions.data(), nbInputs, &descriptions[nbInputs], 1);
    };
    Plugin conv = create(library, "YatConv", convFields({1, 1}, {1, 1}, {0, 0, 0, 0}, {1, 1}));
    std::vector<Tensor> prepared{{DataType::kHALF, {2, 16, 8, 8}}, {DataType::kHALF, {1, 16, 16}},
        {DataType::kFLOAT, {16}}, {DataType::kFLOAT, {16}}};
    size_t const least = sizeOf(conv, prepared, {2, 16, 8, 8});
    report.check(least == 2 * 8 * 8 * sizeof(float), "norms of pixels and nothing else");
    size_t const more
        = sizeOf(conv, raw(DataType::kHALF, {2, 16, 8, 8}, {16, 16, 1, 1}), {2, 16, 8, 8});
    report.check(more > least, "raw weights need scratch memory");
    size_t const most
        = sizeOf(conv, raw(DataType::kHALF, {2, 3, 8, 8}, {16, 3, 1, 1}), {2, 16, 8, 8});
    report.check(most > least, "so do pixels that are not channels last");
    Plugin upsampling
        = create(library, "YatConvTranspose", convTransposeFields({1, 1}, {1, 1}, {0, 0, 0, 0}));
    report.check(sizeOf(upsampling, rawTransposed(DataType::kHALF, {2, 16, 8, 8}, {16, 16, 1, 1}),
                     {2, 16, 8, 8})
                     == more + 16 * 16 * 2,
        "transposed filters are not used in place");
    library.logger().take();
}

void testSerialization(Library& library, Report& report)
{
    auto const roundTrip = [&](char const* op, Fields const& fields)
    {
        Plugin plugin = create(library, op, fields);
        auto const* const written = plugin.runtime->getFieldsToSerialize();
        Plugin again(library.creator(op)->createPlugin(op, written, TensorRTPhase::kRUNTIME));
        report.check(static_cast<bool>(again), std::string("an engine's ") + op);
        if (again)
        {
            report.check(
                !std::strcmp(plugin.build->getMetadataString(), again.build->getMetadataString()),
                std::string("the same ") + op + ": " + again.build->getMetadataString());
        }
    };
    roundTrip("YatDense", denseFields(0.123456789F, -1.5F, 1));
    roundTrip("YatConv", convFields({3, 1, 2}, {1, 2, 3}, {0, 1, 2, 3, 4, 5}, {2, 1, 1}, 4));

    roundTrip("YatConvTranspose",
        convTransposeFields({3, 1, 2}, {1, 2, 3}, {0, 1, 2, 3, 4, 5}, {2, 1, 1}, {0, 1, 2}, 4));

    Fields other = denseFields();
    other.integers("layout", {2});
    report.check(
        !create(library, "YatDense", other, TensorRTPhase::kRUNTIME), "another layout of fields");
    report.says(library, "another version of the library: layout 2");
    report.check(!create(library, "YatDense", denseFields(), TensorRTPhase::kRUNTIME),
        "no layout of fields");
    report.says(library, "layout 0");
    report.check(!create(library, "YatDense", denseFields(), static_cast<TensorRTPhase>(9)),
        "another phase");
    report.says(library, "a phase that the library does not know: 9");
}

} // namespace

int32_t tacticOf(std::string const& kernel)
{
    uint32_t number = 0x811C9DC5U;
    for (unsigned char const byte : kernel)
    {
        number = (number ^ byte) * 0x01000193U;
    }
    return static_cast<int32_t>(number & 0x7FFFFFFFU);
}

void testContract(Library& library, Report& report)
{
    testCreators(library, report);
    testInterfaces(library, report);
    testOutputSizes(library, report);
    testFormats(library, report);
    testTactics(library, report);
    testWorkspace(library, report);
    testSerialization(library, report);
}

} // namespace nmn::plugin::test
