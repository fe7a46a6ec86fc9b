#include "description.h"

#include "log.h"
#include "ops.h"

#include <NvInferVersion.h>

namespace nmn::plugin
{
namespace
{

template <typename Op> std::string describeOp()
{
    std::string names;
    for (char const* const name : attributeNames(Op::kNAME))
    {
        names += (names.empty() ? "\"" : ", \"") + std::string(name) + "\"";
    }
    return std::string("\"") + Op::kNAME + "\": [" + names + "]";
}

template <typename... Ops> struct OpDescriptions
{
    static std::string text()
    {
        std::string joined;
        ((joined += (joined.empty() ? "" : ", ") + describeOp<Ops>()), ...);
        return joined;
    }
};

std::string describe()
{
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << "{\"version\": \"" << NMN_VERSION << "\", \"tensorrt_headers\": \"" << NV_TENSORRT_MAJOR
         << "." << NV_TENSORRT_MINOR << "\", \"ops\": {" << WithAllOps<OpDescriptions>::text()
         << "}, " << kKERNELS_DESCRIPTION << "}";
    return text.str();
}

} // namespace
} // namespace nmn::plugin

char const* nmnPluginDescription()
{
    static std::string const description = nmn::plugin::describe();
    return description.c_str();
}
