//! Attributes of an op as TensorRT carries them: typed fields, from the ONNX node or the engine.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace nmn::plugin
{

//! Fields that a plugin is created from.
class FieldReader
{
public:
    //! \param known Names of all fields that mean something to the op.
    //!
    //! \throws std::invalid_argument There is a field of another name, or one without data.
    FieldReader(
        nvinfer1::PluginFieldCollection const* fields, std::vector<char const*> const& known);

    //! Return a field of one number, or `otherwise` if there is none of the name.
    float number(char const* name, float otherwise) const;

    //! Return a field of one whole number, or `otherwise` if there is none of the name.
    int32_t integer(char const* name, int32_t otherwise) const;

    //! Return a field of whole numbers, which must be there.
    std::vector<int32_t> integers(char const* name) const;

private:
    nvinfer1::PluginField const* find(char const* name) const;

    nvinfer1::PluginFieldCollection mFields{};
};

//! Fields that a plugin is written to an engine as; owns what they point to.
class FieldWriter
{
public:
    void add(char const* name, float value);
    void add(char const* name, std::vector<int32_t> values);

    //! Return the fields; valid as long as this lives.
    nvinfer1::PluginFieldCollection const* collection();

    //! Return the fields in one line of text.
    std::string text() const;

private:
    std::deque<float> mNumbers;
    std::deque<std::vector<int32_t>> mIntegers;
    std::vector<nvinfer1::PluginField> mFields;
    nvinfer1::PluginFieldCollection mCollection{};
};

} // namespace nmn::plugin
