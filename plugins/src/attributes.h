//! Attributes of an op: the table of them, and their values in one layer.
#pragma once

#include "fields.h"

#include <optional>
#include <string_view>
#include <variant>

namespace nmn::plugin
{

//! A number, or one or several whole numbers.
using AttributeValue = std::variant<float, std::vector<int32_t>>;

//! An attribute of an op.
struct AttributeSpec
{
    char const* name;
    nvinfer1::PluginFieldType type;
    int32_t length;                          //!< 1, or 0 for a list of any length.
    std::optional<AttributeValue> otherwise; //!< The default; none if the attribute is required.
};

//! Return the attributes of an op. embed.py makes this table from `OPS` in nmn_export/ops.
//!
//! \throws std::out_of_range There is no op of this name.
std::vector<AttributeSpec> const& attributesOf(std::string_view op);

//! Return the names of the attributes of an op.
std::vector<char const*> attributeNames(std::string_view op);

//! Values of all attributes of an op.
class Attributes
{
public:
    //! \throws std::invalid_argument A field is missing or of another type.
    Attributes(std::string_view op, FieldReader const& fields);

    float number(std::string_view name) const;
    int32_t integer(std::string_view name) const;
    std::vector<int32_t> const& integers(std::string_view name) const;

    //! Write all of them.
    void write(FieldWriter& fields) const;

private:
    AttributeValue const& find(std::string_view name) const;

    std::vector<AttributeSpec> const* mSpecs;
    std::vector<AttributeValue> mValues;
};

} // namespace nmn::plugin
