//! Tests of YatAttention's plugin that need no GPU.

#include "samples.h"
#include "tests.h"

#include <algorithm>
#include <cstring>

namespace nmn::plugin::test
{
namespace
{

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::TensorFormat;

constexpr int32_t kNB_INPUTS = 4;

Plugin make(Library& library, Fields const& fields = attentionFields())
{
    return create(library, "YatAttention", fields);
}

//! Describe inputs, and an output, of which only the type matters.
std::vector<DynamicPluginTensorDesc> described(std::vector<Tensor> inputs)
{
    inputs.push_back(inputs[0]);
    return describe(inputs);
}

int32_t configure(Plugin& plugin, std::vector<DynamicPluginTensorDesc> const& tensors)
{
    return plugin.build->configurePlugin(tensors.data(), kNB_INPUTS, &tensors[kNB_INPUTS], 1);
}

std::vector<int32_t> tacticsOf(Plugin& plugin, std::vector<Tensor> const& inputs)
{
    configure(plugin, described(inputs));
    std::vector<int32_t> tactics(plugin.build->getNbTactics());
    plugin.build->getValidTactics(tactics.data(), static_cast<int32_t>(tactics.size()));
    return tactics;
}

void testOutputAndFormats(Library& library, Report& report)
{
    Plugin plugin = make(library);
    std::vector<Tensor> inputs
        = attention(DataType::kHALF, {-1, 6, -1, 64}, {-1, 2, -1, 64}, {-1, 1, 1, -1});
    inputs[2].sizes[3] = 32;
    report.equal(outputSizes(plugin, inputs), Sizes{-1, 6, -1, 32}, "dynamic batch and lengths");
    for (DataType const type : {DataType::kHALF, DataType::kBF16, DataType::kFLOAT})
    {
        auto tensors = described(attention(type, {2, 6, 5, 64}, {2, 2, 7, 64}));
        bool const isTaken = negotiate(plugin, tensors);
        report.check(isTaken
                         && std::all_of(tensors.begin(), tensors.end(),
                             [](DynamicPluginTensorDesc const& tensor)
                             { return tensor.desc.format == TensorFormat::kLINEAR; }),
            "attention is linear");
    }
    auto mixed = described(attention(DataType::kHALF, {2, 6, 5, 64}, {2, 2, 7, 64}));
    mixed[1].desc.type = DataType::kFLOAT;
    report.check(!negotiate(plugin, mixed), "keys of another type");
    library.logger().take();
}

void testTactics(Library& library, Report& report)
{
    Plugin plugin = make(library);
    auto const firstOf = [&](Sizes const& q, Sizes const& k, Sizes const& mask = {1, 1, 1, 1})
    { return tacticsOf(plugin, attention(DataType::kHALF, q, k, mask))[0]; };
    auto const isFirst = [&](int32_t tactic, std::string const& kernel)
    { report.check(tactic == tacticOf("yat_attention_fp16_" + kernel), "first: " + kernel); };
    // tests/kernels/test_attention.py expects the same of plan_attention.
    isFirst(firstOf({8, 12, 1024, 64}, {8, 12, 1024, 64}), "plain_64");
    isFirst(firstOf({8, 12, 1, 64}, {8, 12, 4096, 64}), "split_64");
    isFirst(firstOf({1, 8, 512, 128}, {1, 8, 512, 128}), "plain_128");
    isFirst(firstOf({1, 8, 384, 128}, {1, 8, 384, 128}), "split_128");
    isFirst(firstOf({8, 12, 1024, 64}, {8, 12, 1024, 64}, {8, 1, 1, 1024}), "masked_64");
    isFirst(firstOf({8, 12, 1024, 40}, {8, 12, 1024, 40}), "general_64");
    isFirst(firstOf({8, 12, 1024, 48}, {8, 12, 1024, 48}), "plain_64");
    isFirst(firstOf({8, 12, 1024, 200}, {8, 12, 1024, 200}), "general_256");
    Plugin spherical = make(library, attentionFields(0, 1));
    auto const tactics
        = tacticsOf(spherical, attention(DataType::kHALF, {8, 12, 1024, 64}, {8, 12, 1024, 64}));
    isFirst(tactics[0], "general_64");
    report.check(std::none_of(tactics.begin(), tactics.end(), [](int32_t tactic)
                     { return tactic == tacticOf("yat_attention_fp16_plain_64"); }),
        "a kernel without options is no tactic of a spherical op");
    for (auto const& fields : {attentionFields(0, 0, 2.F), attentionFields(0, 0, 0.F, -1.F)})
    {
        Plugin other = make(library, fields);
        isFirst(tacticsOf(other, attention(DataType::kHALF, {8, 12, 1, 64}, {8, 12, 4096, 64}))[0],
            "split_64");
    }
}

//! The scratch memory must grow with the length, not with its square.
void testWorkspace(Library& library, Report& report)
{
    Plugin plugin = make(library);
    auto const sizeOf = [&](int64_t length, Sizes const& mask)
    {
        auto const tensors
            = described(attention(DataType::kHALF, {2, 4, length, 64}, {2, 4, length, 64}, mask));
        return plugin.build->getWorkspaceSize(tensors.data(), kNB_INPUTS, &tensors[kNB_INPUTS], 1);
    };
    size_t const norms = 2 * 4 * sizeof(float);
    size_t before = sizeOf(4096, {1, 1, 1, 1});
    report.check(before > norms * 4096, "norms of keys and parts of few rows");
    for (int64_t length = 8192; length <= 131072; length *= 2)
    {
        size_t const size = sizeOf(length, {1, 1, 1, 1});
        report.check(size - before <= norms * length / 2, "norms are all that grows");
        report.equal(sizeOf(length, {1, 1, 1, length}), size, "a mask needs no scratch memory");
        before = size;
    }
}

void testProfiles(Library& library, Report& report)
{
    Plugin plugin = make(library);
    auto const largest
        = attention(DataType::kHALF, {8, 6, 512, 64}, {8, 2, 512, 64}, {8, 1, 512, 512});
    auto const configured = [&](std::vector<Sizes> const& smallest)
    {
        auto tensors = described(largest);
        for (size_t i = 0; i < smallest.size(); ++i)
        {
            tensors[i].min = toDims(smallest[i]);
        }
        return configure(plugin, tensors);
    };
    report.check(configured({{1, 6, 1, 64}, {1, 2, 1, 64}, {1, 2, 1, 64}, {1, 1, 1, 1}}) == 0,
        "batch, lengths and the mask may vary");
    report.check(configured({{8, 3, 512, 64}}) != 0, "heads may not");
    report.says(library, "axis 1 of input 0 must not vary within a profile");
    report.check(configured({{8, 6, 512, 64}, {8, 2, 512, 32}}) != 0, "features may not");
    report.says(library, "axis 3 of input 1 must not vary within a profile");
}

void testRefusedSizes(Library& library, Report& report)
{
    Plugin plugin = make(library);
    auto const refuses = [&](std::vector<Tensor> const& inputs, char const* message)
    {
        report.check(configure(plugin, described(inputs)) != 0, std::string("refused: ") + message);
        report.says(library, message);
    };
    auto const half = DataType::kHALF;
    refuses(attention(half, {2, 6, 5, 64}, {2, 4, 7, 64}), "where G divides H");
    refuses(attention(half, {2, 6, 5, 64}, {3, 2, 7, 64}), "where G divides H");
    refuses(attention(half, {2, 6, 5, 64}, {2, 2, 7, 32}), "where G divides H");
    refuses(attention(half, {2, 6, 5, 272}, {2, 2, 7, 272}), "at most 256 features per head");
    refuses(attention(half, {2, 6, 5, 64}, {2, 2, 7, 64}, {2, 1, 1, 5}), "axis 3 must be 1 or 7");
    refuses(attention(half, {1 << 14, 64, 64, 64}, {1 << 14, 64, 64, 64}), "smaller than 2^31");
    report.check(
        outputSizes(plugin, attention(half, {2, 6, 64}, {2, 2, 7, 64})).empty(), "three axes");
    report.says(library, "four dimensions; got 3 for input 0");
    auto few = attention(half, {2, 6, 5, 64}, {2, 2, 7, 64});
    few.pop_back();
    report.check(outputSizes(plugin, few).empty(), "no mask");
    report.says(library, "takes 4 inputs");
}

void testRefusedFields(Library& library, Report& report)
{
    auto const refuses = [&](Fields const& fields, char const* message)
    {
        report.check(!make(library, fields), std::string("refused: ") + message);
        report.says(library, message);
    };
    refuses(attentionFields(0, 0, -1.F), "power must be finite and at least 0");
    refuses(attentionFields(0, 0, 1.F, 1.F, 1e-3F, -1.F), "guard must be finite and at least 0");
    refuses(attentionFields(0, 0, 0.F, 1e30F), "alpha must be 0");
    refuses(attentionFields(0, 0, 0.F, 1.F, 0.F), "epsilon must be positive");
}

} // namespace

void testAttention(Library& library, Report& report)
{
    testOutputAndFormats(library, report);
    testTactics(library, report);
    testWorkspace(library, report);
    testProfiles(library, report);
    testRefusedSizes(library, report);
    testRefusedFields(library, report);
}

} // namespace nmn::plugin::test
