//! TensorRT's plugin fields: typed attributes from an ONNX node or an engine.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace nmn::plugin
{

//! Reads the fields that a plugin is created from.
class FieldReader
{
public:
    //! \param known Names of all supported fields.
    //!
    //! \throws std::invalid_argument A field has another name, or no data.
    FieldReader(
        nvinfer1::PluginFieldCollection const* fields, std::vector<char const*> const& known);

    //! Return whether there is a field of this name.
    bool has(char const* name) const;

    // The following return a field of one number, one whole number, or several whole numbers. They
    // throw std::invalid_argument if there is none of the name, or if it has another type.
    float number(char const* name) const;
    int32_t integer(char const* name) const;
    std::vector<int32_t> integers(char const* name) const;

private:
    nvinfer1::PluginField const& find(char const* name) const;

    nvinfer1::PluginFieldCollection mFields{};
};

//! Collects the fields that a plugin is serialized as, and owns their data.
class FieldWriter
{
public:
    void add(char const* name, float value);
    void add(char const* name, std::vector<int32_t> values);

    //! Return the fields; valid during the lifetime of this object.
    nvinfer1::PluginFieldCollection const* collection();

    //! Return the fields as one line of text.
    std::string text() const;

private:
    std::deque<float> mNumbers;
    std::deque<std::vector<int32_t>> mIntegers;
    std::vector<nvinfer1::PluginField> mFields;
    nvinfer1::PluginFieldCollection mCollection{};
};

} // namespace nmn::plugin
