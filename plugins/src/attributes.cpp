#include "attributes.h"

#include <stdexcept>

namespace nmn::plugin
{
namespace
{

AttributeValue read(AttributeSpec const& spec, FieldReader const& fields)
{
    if (spec.otherwise && !fields.has(spec.name))
    {
        return *spec.otherwise;
    }
    if (spec.type == nvinfer1::PluginFieldType::kFLOAT32)
    {
        return fields.number(spec.name);
    }
    return spec.length == 1 ? std::vector<int32_t>{fields.integer(spec.name)}
                            : fields.integers(spec.name);
}

} // namespace

std::vector<char const*> attributeNames(std::string_view op)
{
    std::vector<char const*> names;
    for (AttributeSpec const& spec : attributesOf(op))
    {
        names.push_back(spec.name);
    }
    return names;
}

Attributes::Attributes(std::string_view op, FieldReader const& fields) : mSpecs(&attributesOf(op))
{
    for (AttributeSpec const& spec : *mSpecs)
    {
        mValues.push_back(read(spec, fields));
    }
}

AttributeValue const& Attributes::find(std::string_view name) const
{
    for (size_t i = 0; i < mSpecs->size(); ++i)
    {
        if ((*mSpecs)[i].name == name)
        {
            return mValues[i];
        }
    }
    throw std::logic_error("the op has no attribute " + std::string(name));
}

float Attributes::number(std::string_view name) const
{
    return std::get<float>(find(name));
}

int32_t Attributes::integer(std::string_view name) const
{
    return integers(name).at(0);
}

std::vector<int32_t> const& Attributes::integers(std::string_view name) const
{
    return std::get<std::vector<int32_t>>(find(name));
}

void Attributes::write(FieldWriter& fields) const
{
    for (size_t i = 0; i < mSpecs->size(); ++i)
    {
        std::visit([&](auto const& value) { fields.add((*mSpecs)[i].name, value); }, mValues[i]);
    }
}

} // namespace nmn::plugin
