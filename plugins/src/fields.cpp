#include "fields.h"

#include "log.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace nmn::plugin
{
namespace
{

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

//! Convert the numbers of a field from the type in which they are stored.
template <typename Value, typename Stored> std::vector<Value> read(PluginField const& field)
{
    std::vector<Value> values;
    for (int32_t i = 0; i < field.length; ++i)
    {
        Stored stored{};
        std::memcpy(
            &stored, static_cast<char const*>(field.data) + i * sizeof(Stored), sizeof(Stored));
        auto const value = static_cast<Value>(stored);
        if (static_cast<Stored>(value) != stored && stored == stored
            && std::numeric_limits<Value>::is_integer)
        {
            throw refusal("field '", field.name, "' must fit 32 bits; got ", stored);
        }
        values.push_back(value);
    }
    return values;
}

void checkOne(PluginField const& field)
{
    if (field.length != 1)
    {
        throw refusal("field '", field.name, "' must be one number; got ", field.length);
    }
}

[[noreturn]] void refuseType(PluginField const& field)
{
    throw refusal(
        "field '", field.name, "' has an unexpected type: ", static_cast<int32_t>(field.type));
}

} // namespace

FieldReader::FieldReader(
    nvinfer1::PluginFieldCollection const* fields, std::vector<char const*> const& known)
{
    if (fields == nullptr || fields->nbFields < 0
        || (fields->nbFields > 0 && fields->fields == nullptr))
    {
        throw refusal("a plugin needs a collection of fields; got none");
    }
    mFields = *fields;
    for (int32_t i = 0; i < mFields.nbFields; ++i)
    {
        PluginField const& field = mFields.fields[i];
        if (field.name == nullptr || field.length < 0
            || (field.length > 0 && field.data == nullptr))
        {
            throw refusal("field ", i, " must have a name and data");
        }
        auto const isIt = [&field](char const* name) { return !std::strcmp(name, field.name); };
        if (std::none_of(known.begin(), known.end(), isIt))
        {
            throw refusal("field '", field.name,
                "' is not known to this version of the library; use the one the engine was built "
                "with");
        }
    }
}

bool FieldReader::has(char const* name) const
{
    return std::any_of(mFields.fields, mFields.fields + mFields.nbFields,
        [name](PluginField const& field) { return !std::strcmp(field.name, name); });
}

PluginField const& FieldReader::find(char const* name) const
{
    for (int32_t i = 0; i < mFields.nbFields; ++i)
    {
        if (!std::strcmp(mFields.fields[i].name, name))
        {
            return mFields.fields[i];
        }
    }
    throw refusal("field '", name, "' is missing");
}

float FieldReader::number(char const* name) const
{
    PluginField const& field = find(name);
    checkOne(field);
    switch (field.type)
    {
    case PluginFieldType::kFLOAT32:
        return read<float, float>(field)[0];
    case PluginFieldType::kFLOAT64:
        return read<float, double>(field)[0];
    default:
        refuseType(field);
    }
}

std::vector<int32_t> FieldReader::integers(char const* name) const
{
    PluginField const& field = find(name);
    switch (field.type)
    {
    case PluginFieldType::kINT32:
        return read<int32_t, int32_t>(field);
    case PluginFieldType::kINT64:
        return read<int32_t, int64_t>(field);
    default:
        refuseType(field);
    }
}

int32_t FieldReader::integer(char const* name) const
{
    checkOne(find(name));
    return integers(name)[0];
}

void FieldWriter::add(char const* name, float value)
{
    mNumbers.push_back(value);
    mFields.emplace_back(name, &mNumbers.back(), PluginFieldType::kFLOAT32, 1);
}

void FieldWriter::add(char const* name, std::vector<int32_t> values)
{
    mIntegers.push_back(std::move(values));
    std::vector<int32_t> const& kept = mIntegers.back();
    mFields.emplace_back(
        name, kept.data(), PluginFieldType::kINT32, static_cast<int32_t>(kept.size()));
}

nvinfer1::PluginFieldCollection const* FieldWriter::collection()
{
    mCollection = {static_cast<int32_t>(mFields.size()), mFields.data()};
    return &mCollection;
}

std::string FieldWriter::text() const
{
    std::ostringstream text;
    text.imbue(std::locale::classic());
    // All digits, because plugins with different attributes must not share timings.
    text.precision(std::numeric_limits<float>::max_digits10);
    for (PluginField const& field : mFields)
    {
        text << (text.tellp() > 0 ? " " : "") << field.name << '=';
        for (int32_t i = 0; i < field.length; ++i)
        {
            text << (i > 0 ? "," : "");
            if (field.type == PluginFieldType::kFLOAT32)
            {
                text << static_cast<float const*>(field.data)[i];
            }
            else
            {
                text << static_cast<int32_t const*>(field.data)[i];
            }
        }
    }
    return text.str();
}

} // namespace nmn::plugin
