#include "plugin_host.h"

#include <NvInferImpl.h>

#include <algorithm>
#include <deque>
#include <dlfcn.h>
#include <stdexcept>
#include <utility>

namespace nmn::plugin::test
{
namespace
{

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::TensorFormat;

//! A size that is known, or, while a network is built, is not.
struct SizeValue final : nvinfer1::apiv::VDimensionExpr
{
    int64_t value{0};
    bool isKnown{false};

    bool isConstant() const override
    {
        return isKnown;
    }

    int64_t getConstantValue() const override
    {
        return value;
    }

    bool isSizeTensor() const override
    {
        return false;
    }
};

class Size final : public nvinfer1::IDimensionExpr
{
public:
    Size(int64_t value, bool isKnown)
    {
        mValue.value = value;
        mValue.isKnown = isKnown;
        mImpl = &mValue;
    }

private:
    SizeValue mValue;
};

class SizeMaker final : public nvinfer1::apiv::VExprBuilder
{
public:
    nvinfer1::IDimensionExpr const* constant(int64_t value) override
    {
        return &mSizes.emplace_back(value, true);
    }

    nvinfer1::IDimensionExpr const* unknown()
    {
        return &mSizes.emplace_back(0, false);
    }

    nvinfer1::IDimensionExpr const* operation(nvinfer1::DimensionOperation operation,
        nvinfer1::IDimensionExpr const& first, nvinfer1::IDimensionExpr const& second) override
    {
        if (!first.isConstant() || !second.isConstant())
        {
            return unknown();
        }
        int64_t const a = first.getConstantValue();
        int64_t const b = second.getConstantValue();
        switch (operation)
        {
        case nvinfer1::DimensionOperation::kSUM:
            return constant(a + b);
        case nvinfer1::DimensionOperation::kPROD:
            return constant(a * b);
        case nvinfer1::DimensionOperation::kFLOOR_DIV:
            return constant(a / b);
        default:
            throw std::logic_error("an operation that the tests do not know");
        }
    }

    nvinfer1::IDimensionExpr const* declareSizeTensor(
        int32_t, nvinfer1::IDimensionExpr const&, nvinfer1::IDimensionExpr const&) override
    {
        throw std::logic_error("the ops have no size tensors");
    }

private:
    std::deque<Size> mSizes;
};

class Builder final : public nvinfer1::IExprBuilder
{
public:
    Builder()
    {
        mImpl = &maker;
    }

    SizeMaker maker;
};

//! The formats that TensorRT 10 and 11 know, apart from those of accelerators.
constexpr TensorFormat kFORMATS[]
    = {TensorFormat::kLINEAR, TensorFormat::kCHW2, TensorFormat::kHWC8, TensorFormat::kCHW4,
        TensorFormat::kCHW32, TensorFormat::kDHWC8, TensorFormat::kHWC, TensorFormat::kDHWC};

bool negotiateFrom(Plugin& plugin, std::vector<DynamicPluginTensorDesc>& tensors, size_t position)
{
    if (position == tensors.size())
    {
        return true;
    }
    for (TensorFormat const format : kFORMATS)
    {
        tensors[position].desc.format = format;
        if (plugin.build->supportsFormatCombination(static_cast<int32_t>(position), tensors.data(),
                static_cast<int32_t>(tensors.size()) - 1, 1)
            && negotiateFrom(plugin, tensors, position + 1))
        {
            return true;
        }
    }
    return false;
}

template <typename Function> Function symbol(void* library, char const* name)
{
    auto const found = reinterpret_cast<Function>(dlsym(library, name));
    if (found == nullptr)
    {
        throw std::runtime_error(std::string("the library has no ") + name);
    }
    return found;
}

} // namespace

void Logger::log(Severity /*severity*/, char const* message) noexcept
{
    mMessages += std::string(message) + "\n";
}

nvinfer1::ILogger* Logger::findLogger()
{
    return this;
}

std::string Logger::take()
{
    return std::exchange(mMessages, {});
}

Library::Library(std::string const& path)
{
    // Not closed: it knows the logger, and is closed with the process.
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
    {
        throw std::runtime_error(dlerror());
    }
    symbol<void (*)(nvinfer1::ILoggerFinder*)>(library, "setLoggerFinder")(&mLogger);
    int32_t count = 0;
    auto const* const creators = symbol<nvinfer1::IPluginCreatorInterface* const* (*)(int32_t&)>(
        library, "getCreators")(count);
    for (int32_t i = 0; i < count; ++i)
    {
        mCreators.push_back(static_cast<nvinfer1::IPluginCreatorV3One*>(creators[i]));
    }
}

nvinfer1::IPluginCreatorV3One* Library::creator(std::string const& op) const
{
    auto const found = std::find_if(mCreators.begin(), mCreators.end(),
        [&op](auto const* creator) { return creator->getPluginName() == op; });
    return found == mCreators.end() ? nullptr : *found;
}

Fields& Fields::number(std::string const& name, float value)
{
    mNames.push_back(name);
    mNumbers.push_back(value);
    mFields.emplace_back(
        mNames.back().c_str(), &mNumbers.back(), nvinfer1::PluginFieldType::kFLOAT32, 1);
    return *this;
}

Fields& Fields::integers(std::string const& name, std::vector<int32_t> values)
{
    mNames.push_back(name);
    mIntegers.push_back(std::move(values));
    std::vector<int32_t> const& kept = mIntegers.back();
    mFields.emplace_back(mNames.back().c_str(), kept.data(), nvinfer1::PluginFieldType::kINT32,
        static_cast<int32_t>(kept.size()));
    return *this;
}

nvinfer1::PluginFieldCollection const* Fields::collection() const
{
    mCollection = {static_cast<int32_t>(mFields.size()), mFields.data()};
    return &mCollection;
}

Plugin::Plugin(nvinfer1::IPluginV3* made) : plugin(made)
{
    using Type = nvinfer1::PluginCapabilityType;
    if (made != nullptr)
    {
        core = static_cast<nvinfer1::IPluginV3OneCore*>(made->getCapabilityInterface(Type::kCORE));
        build
            = static_cast<nvinfer1::IPluginV3OneBuild*>(made->getCapabilityInterface(Type::kBUILD));
        runtime = static_cast<nvinfer1::IPluginV3OneRuntime*>(
            made->getCapabilityInterface(Type::kRUNTIME));
    }
}

Plugin create(Library const& library, std::string const& op, Fields const& fields,
    nvinfer1::TensorRTPhase phase)
{
    return Plugin(library.creator(op)->createPlugin(op.c_str(), fields.collection(), phase));
}

nvinfer1::Dims toDims(std::vector<int64_t> const& sizes)
{
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<int32_t>(sizes.size());
    std::copy(sizes.begin(), sizes.end(), dims.d);
    return dims;
}

std::vector<DynamicPluginTensorDesc> describe(std::vector<Tensor> const& tensors)
{
    std::vector<DynamicPluginTensorDesc> descriptions;
    for (Tensor const& tensor : tensors)
    {
        nvinfer1::Dims const dims = toDims(tensor.sizes);
        descriptions.push_back({{dims, tensor.type, TensorFormat::kLINEAR, 1.F}, dims, dims, dims});
    }
    return descriptions;
}

std::vector<int64_t> outputSizes(Plugin& plugin, std::vector<Tensor> const& inputs)
{
    Builder builder;
    std::vector<nvinfer1::DimsExprs> expressions;
    for (Tensor const& input : inputs)
    {
        nvinfer1::DimsExprs& expression = expressions.emplace_back();
        expression.nbDims = static_cast<int32_t>(input.sizes.size());
        for (size_t i = 0; i < input.sizes.size(); ++i)
        {
            int64_t const size = input.sizes[i];
            expression.d[i] = size < 0 ? builder.maker.unknown() : builder.maker.constant(size);
        }
    }
    nvinfer1::DimsExprs output{};
    if (plugin.build->getOutputShapes(expressions.data(), static_cast<int32_t>(inputs.size()),
            nullptr, 0, &output, 1, builder)
        != 0)
    {
        return {};
    }
    std::vector<int64_t> sizes;
    for (int32_t i = 0; i < output.nbDims; ++i)
    {
        sizes.push_back(output.d[i]->isConstant() ? output.d[i]->getConstantValue() : -1);
    }
    return sizes;
}

bool negotiate(Plugin& plugin, std::vector<DynamicPluginTensorDesc>& tensors)
{
    return negotiateFrom(plugin, tensors, 0);
}

} // namespace nmn::plugin::test
