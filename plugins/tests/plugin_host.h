//! The parts of TensorRT that a plugin uses, for tests without TensorRT.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace nmn::plugin::test
{

//! Keeps the messages of the library.
class Logger final : public nvinfer1::ILogger, public nvinfer1::ILoggerFinder
{
public:
    void log(Severity severity, char const* message) noexcept override;
    nvinfer1::ILogger* findLogger() override;

    //! Return the messages since the last call.
    std::string take();

private:
    std::string mMessages;
};

//! The plugin library, opened as TensorRT opens it.
class Library
{
public:
    //! \throws std::runtime_error It cannot be opened, or lacks a function.
    explicit Library(std::string const& path);

    //! Return the creator of an op, or `nullptr`.
    nvinfer1::IPluginCreatorV3One* creator(std::string const& op) const;

    Logger& logger()
    {
        return mLogger;
    }

private:
    Logger mLogger;
    std::vector<nvinfer1::IPluginCreatorV3One*> mCreators;
};

//! Plugin fields that own their data.
class Fields
{
public:
    Fields& number(std::string const& name, float value);
    Fields& integers(std::string const& name, std::vector<int32_t> values);
    nvinfer1::PluginFieldCollection const* collection() const;

private:
    std::deque<std::string> mNames;
    std::deque<float> mNumbers;
    std::deque<std::vector<int32_t>> mIntegers;
    std::vector<nvinfer1::PluginField> mFields;
    mutable nvinfer1::PluginFieldCollection mCollection{};
};

//! A plugin and its interfaces.
struct Plugin
{
    std::unique_ptr<nvinfer1::IPluginV3> plugin;
    nvinfer1::IPluginV3OneCore* core{nullptr};
    nvinfer1::IPluginV3OneBuild* build{nullptr};
    nvinfer1::IPluginV3OneRuntime* runtime{nullptr};

    explicit Plugin(nvinfer1::IPluginV3* made);

    explicit operator bool() const
    {
        return plugin != nullptr;
    }
};

Plugin create(Library const& library, std::string const& op, Fields const& fields,
    nvinfer1::TensorRTPhase phase = nvinfer1::TensorRTPhase::kBUILD);

//! A tensor as TensorRT describes it.
struct Tensor
{
    nvinfer1::DataType type;
    std::vector<int64_t> sizes;
};

nvinfer1::Dims toDims(std::vector<int64_t> const& sizes);

//! Describe linear tensors of fixed sizes.
std::vector<nvinfer1::DynamicPluginTensorDesc> describe(std::vector<Tensor> const& tensors);

//! Return the sizes of the output, or none if the plugin refuses the inputs. Negative sizes are
//! dynamic.
std::vector<int64_t> outputSizes(Plugin& plugin, std::vector<Tensor> const& inputs);

//! Choose the formats of inputs and output as TensorRT does, one tensor after the other.
//!
//! \return Whether the plugin takes the tensors in any format; `tensors` are then described in it.
bool negotiate(Plugin& plugin, std::vector<nvinfer1::DynamicPluginTensorDesc>& tensors);

} // namespace nmn::plugin::test
