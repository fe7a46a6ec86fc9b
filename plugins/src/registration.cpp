//! What TensorRT finds in the library: the creators of its plugins.

#include "conv.h"
#include "dense.h"
#include "description.h"
#include "yat_plugin.h"

#include <dlfcn.h>

namespace nmn::plugin
{
namespace
{

//! Creates plugins of one op, from an ONNX node or from an engine.
template <typename Op> class YatCreator final : public nvinfer1::IPluginCreatorV3One
{
public:
    YatCreator()
        : mAttributes(Op::attributes()),
          mCollection{static_cast<int32_t>(mAttributes.size()), mAttributes.data()},
          mKnown{kLAYOUT_FIELD}
    {
        for (nvinfer1::PluginField const& attribute : mAttributes)
        {
            mKnown.push_back(attribute.name);
        }
    }

    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* /*name*/,
        nvinfer1::PluginFieldCollection const* fields,
        nvinfer1::TensorRTPhase phase) noexcept override
    {
        return guarded(Op::kNAME, static_cast<nvinfer1::IPluginV3*>(nullptr),
            [&]() -> nvinfer1::IPluginV3*
            {
                FieldReader const reader(fields, mKnown);
                bool const isRuntime = phase == nvinfer1::TensorRTPhase::kRUNTIME;
                if (!isRuntime && phase != nvinfer1::TensorRTPhase::kBUILD)
                {
                    throw refusal("a phase that the library does not know: ",
                        static_cast<int32_t>(phase), "; use a library built for this TensorRT");
                }
                int32_t const layout = reader.integer(kLAYOUT_FIELD, isRuntime ? 0 : kLAYOUT);
                if (layout != kLAYOUT)
                {
                    throw refusal(
                        "the engine was written by another version of the library: layout ", layout,
                        ", this one reads ", kLAYOUT, "; build it again");
                }
                return new YatPlugin(Op::kNAME, std::make_shared<Op const>(reader));
            });
    }

    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override
    {
        return &mCollection;
    }

    nvinfer1::AsciiChar const* getPluginName() const noexcept override
    {
        return Op::kNAME;
    }

    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override
    {
        return kVERSION;
    }

    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override
    {
        return kNAMESPACE;
    }

private:
    std::vector<nvinfer1::PluginField> mAttributes;
    nvinfer1::PluginFieldCollection mCollection;
    std::vector<char const*> mKnown; //!< Names of all fields that mean something.
};

//! Whether the TensorRT in the process, if it can be seen, is one whose interfaces are known:
//! 10 and 11, and TensorRT-RTX 1.
bool isKnownTensorRt()
{
    using Version = int32_t (*)();
    auto const major = reinterpret_cast<Version>(dlsym(RTLD_DEFAULT, "getInferLibMajorVersion"));
    if (major == nullptr)
    {
        return true;
    }
    int32_t const version = major();
    if (version == 1 || version == 10 || version == 11)
    {
        return true;
    }
    logError("the library knows TensorRT 10 and 11 and TensorRT-RTX 1; got version "
             + std::to_string(version) + "; use a library built for it");
    return false;
}

} // namespace
} // namespace nmn::plugin

extern "C" NMN_EXPORTED void setLoggerFinder(nvinfer1::ILoggerFinder* finder)
{
    nmn::plugin::setLoggerFinder(finder);
}

extern "C" NMN_EXPORTED nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& nbCreators)
{
    using namespace nmn::plugin;
    using Creators = nvinfer1::IPluginCreatorInterface* const*;
    nbCreators = 0;
    return guarded("getCreators", Creators{},
        [&]() -> Creators
        {
            static YatCreator<Dense> sDense;
            static YatCreator<Conv> sConv;
            static nvinfer1::IPluginCreatorInterface* const sCreators[] = {&sDense, &sConv};
            nbCreators = isKnownTensorRt() ? static_cast<int32_t>(std::size(sCreators)) : 0;
            return sCreators;
        });
}
