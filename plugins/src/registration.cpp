//! What TensorRT finds in the library: the creators of its plugins.

#include "conv.h"
#include "dense.h"
#include "description.h"
#include "yat_plugin.h"

#include <NvInferVersion.h>

#include <dlfcn.h>

// TensorRT-RTX counts from 1.
static_assert(NV_TENSORRT_MAJOR == 1 || NV_TENSORRT_MAJOR >= 10,
    "The headers of TensorRT 10 or newer are needed");

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

//! Return the major version of the TensorRT that `caller` is code of, or else of one that all the
//! process sees; 0 if that cannot be known.
int32_t majorVersion(void* caller)
{
    constexpr char const* kFUNCTION = "getInferLibMajorVersion";
    using Version = int32_t (*)();
    Version version = nullptr;
    Dl_info info{};
    if (dladdr(caller, &info) != 0)
    {
        if (void* const library = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD))
        {
            version = reinterpret_cast<Version>(dlsym(library, kFUNCTION));
            dlclose(library);
        }
    }
    if (version == nullptr)
    {
        version = reinterpret_cast<Version>(dlsym(RTLD_DEFAULT, kFUNCTION));
    }
    return version == nullptr ? 0 : version();
}

//! Whether the interfaces of a TensorRT are known: of 10 and 11, and of TensorRT-RTX 1.
bool isKnown(int32_t version)
{
    if (version == 0 || version == 1 || version == 10 || version == 11)
    {
        return true;
    }
    throw refusal("the library knows TensorRT 10 and 11 and TensorRT-RTX 1; got version ", version,
        "; use a library built for it");
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
    void* const caller = __builtin_return_address(0);
    nbCreators = 0;
    return guarded("getCreators", Creators{},
        [&]() -> Creators
        {
            // Never destroyed, as their plugins may outlive what else ends with the process.
            static auto& sDense = *new YatCreator<Dense>;
            static auto& sConv = *new YatCreator<Conv>;
            static nvinfer1::IPluginCreatorInterface* const sCreators[] = {&sDense, &sConv};
            nbCreators = isKnown(majorVersion(caller)) ? int32_t{std::size(sCreators)} : 0;
            return sCreators;
        });
}
