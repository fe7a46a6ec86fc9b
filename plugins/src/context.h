//! What is known of a CUDA context: its device, and the kernels loaded into it.
#pragma once

#include "kernel.h"

#include <mutex>
#include <string_view>
#include <unordered_map>

namespace nmn::plugin
{

//! A kernel that can be launched.
struct Loaded
{
    Kernel const* kernel{nullptr};
    CUfunction function{nullptr};
};

//! A CUDA context; its kernels stay loaded as long as it lives, the library's unloading included.
//! All methods may be called from several threads at once.
class Context
{
public:
    //! Return the context that is current on this thread.
    //!
    //! \throws std::runtime_error There is no driver, or no context.
    static Context& current();

    Context();

    //! Return the kernel of this name for the device, loading it first if need be.
    //!
    //! \throws std::runtime_error None of them runs on the device.
    Loaded load(std::string_view name);

    //! Streaming multiprocessors of the device.
    int32_t processors() const
    {
        return mProcessors;
    }

private:
    Kernel const& choose(std::string_view name) const;

    int32_t mCapability{0};
    int32_t mProcessors{0};
    uint32_t mSharedBytes{0};
    std::mutex mMutex;
    std::unordered_map<std::string_view, Loaded> mLoaded;
};

} // namespace nmn::plugin
