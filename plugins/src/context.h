//! A CUDA context: its device, and the kernels loaded into it.
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

//! A CUDA context. Its kernels stay loaded until it is destroyed, even if the library is unloaded.
//! All methods are thread-safe.
class Context
{
public:
    //! Return the current context of this thread.
    //!
    //! \throws std::runtime_error There is no driver, or no context.
    static Context& current();

    Context();

    //! Return the kernel of this name for the device. It is loaded on first use.
    //!
    //! \throws std::runtime_error There is none for the device.
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
