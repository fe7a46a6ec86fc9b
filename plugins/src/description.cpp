#include "description.h"

#include "conv.h"
#include "dense.h"
#include "log.h"

#include <NvInferVersion.h>

namespace nmn::plugin
{
namespace
{

template <typename Op> std::string describeOp()
{
    std::string names;
    for (nvinfer1::PluginField const& field : Op::attributes())
    {
        names += (names.empty() ? "\"" : ", \"") + std::string(field.name) + "\"";
    }
    return std::string("\"") + Op::kNAME + "\": [" + names + "]";
}

std::string describe()
{
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << "{\"version\": \"" << NMN_VERSION << "\", \"tensorrt_headers\": \"" << NV_TENSORRT_MAJOR
         << "." << NV_TENSORRT_MINOR << "\", \"ops\": {" << describeOp<Dense>() << ", "
         << describeOp<Conv>() << "}, " << kKERNELS_DESCRIPTION << "}";
    return text.str();
}

} // namespace
} // namespace nmn::plugin

char const* nmnPluginDescription()
{
    static std::string const description = nmn::plugin::describe();
    return description.c_str();
}
