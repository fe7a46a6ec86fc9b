//! The entry points for TensorRT, and the creators of the plugins.

#include "description.h"
#include "ops.h"
#include "yat_plugin.h"

#include <NvInferVersion.h>

#include <array>
#include <dlfcn.h>

// The versions of TensorRT-RTX start at 1.
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
    YatCreator() : mKnown(attributeNames(Op::kNAME))
    {
        mKnown.push_back(kLAYOUT_FIELD);
        for (AttributeSpec const& spec : attributesOf(Op::kNAME))
        {
            mFields.emplace_back(spec.name, nullptr, spec.type, spec.length);
        }
        mCollection = {static_cast<int32_t>(mFields.size()), mFields.data()};
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
                int32_t const layout = reader.has(kLAYOUT_FIELD) ? reader.integer(kLAYOUT_FIELD)
                                       : isRuntime               ? 0
                                                                 : kLAYOUT;
                if (layout != kLAYOUT)
                {
                    throw refusal(
                        "the engine was written by another version of the library: layout ", layout,
                        ", this one reads ", kLAYOUT, "; build it again");
                }
                Attributes const attributes(Op::kNAME, reader);
                return new YatPlugin(Op::kNAME, std::make_shared<Op const>(attributes));
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
    std::vector<char const*> mKnown; //!< Names of all supported fields.
    std::vector<nvinfer1::PluginField> mFields;
    nvinfer1::PluginFieldCollection mCollection{};
};

template <typename... Ops> struct Creators
{
    using Array = std::array<nvinfer1::IPluginCreatorInterface*, sizeof...(Ops)>;

    //! Return a creator for each op. They are never destroyed, because plugins may exist until the
    //! process ends.
    static Array const& all()
    {
        static auto const& creators = *new Array{new YatCreator<Ops>...};
        return creators;
    }
};

//! Return the major version of the TensorRT that contains `caller`. If that library does not export
//! its version, return that of a globally loaded one, or 0.
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

//! Return whether a version of TensorRT is supported: 10 and 11, and TensorRT-RTX 1, or unknown.
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
    using Result = nvinfer1::IPluginCreatorInterface* const*;
    void* const caller = __builtin_return_address(0);
    nbCreators = 0;
    return guarded("getCreators", Result{},
        [&]() -> Result
        {
            auto const& creators = WithAllOps<Creators>::all();
            nbCreators = isKnown(majorVersion(caller)) ? static_cast<int32_t>(creators.size()) : 0;
            return creators.data();
        });
}
