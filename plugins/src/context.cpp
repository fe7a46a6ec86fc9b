#include "context.h"

#include <map>
#include <memory>
#include <stdexcept>
#include <string>

namespace nmn::plugin
{
namespace
{

int32_t attribute(Driver const& driver, CUdevice_attribute name)
{
    CUdevice device{};
    driver.check(driver.cuCtxGetDevice(&device), "cuCtxGetDevice");
    int value = 0;
    driver.check(driver.cuDeviceGetAttribute(&value, name, device), "cuDeviceGetAttribute");
    return value;
}

//! Whether a kernel runs on a device. Machine code runs on devices of the same major version and of
//! the same or a higher minor version.
bool runs(Kernel const& kernel, int32_t capability)
{
    if (kernel.portable)
    {
        return kernel.capability <= capability;
    }
    if (kernel.exact)
    {
        return kernel.capability == capability;
    }
    return kernel.capability / 10 == capability / 10 && kernel.capability <= capability;
}

} // namespace

Context& Context::current()
{
    // Never destroyed, because threads may run inference until the process ends. The key is the ID
    // of the context: the address of a destroyed context may be reused.
    static auto& sMutex = *new std::mutex;
    static auto& sContexts = *new std::map<unsigned long long, std::unique_ptr<Context>>;
    Driver const& driver = Driver::get();
    CUcontext handle{};
    driver.check(driver.cuCtxGetCurrent(&handle), "cuCtxGetCurrent");
    if (handle == nullptr)
    {
        throw std::runtime_error("inference needs a current CUDA context; got none");
    }
    unsigned long long id = 0;
    driver.check(driver.cuCtxGetId(handle, &id), "cuCtxGetId");
    std::lock_guard<std::mutex> const lock(sMutex);
    std::unique_ptr<Context>& context = sContexts[id];
    if (!context)
    {
        context = std::make_unique<Context>();
    }
    return *context;
}

Context::Context()
{
    Driver const& driver = Driver::get();
    mCapability = 10 * attribute(driver, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
                  + attribute(driver, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    mProcessors = attribute(driver, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    mSharedBytes = static_cast<uint32_t>(
        attribute(driver, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN));
}

Kernel const& Context::choose(std::string_view name) const
{
    Kernel const* best = nullptr;
    for (Kernel const& kernel : kernels())
    {
        if (kernel.name != name || !runs(kernel, mCapability) || kernel.sharedBytes > mSharedBytes)
        {
            continue;
        }
        bool const closer = best != nullptr && !kernel.portable
                            && (best->portable || kernel.capability > best->capability);
        if (best == nullptr || closer)
        {
            best = &kernel;
        }
    }
    if (best == nullptr)
    {
        throw std::runtime_error(
            "kernel " + std::string(name) + " is not in the library for compute capability "
            + std::to_string(mCapability / 10) + "." + std::to_string(mCapability % 10)
            + "; build the library for it (make plugin ARCHS=...)");
    }
    return *best;
}

Loaded Context::load(std::string_view name)
{
    std::lock_guard<std::mutex> const lock(mMutex);
    auto const found = mLoaded.find(name);
    if (found != mLoaded.end())
    {
        return found->second;
    }
    Driver const& driver = Driver::get();
    Kernel const& kernel = choose(name);
    CUmodule module{};
    driver.check(driver.cuModuleLoadData(&module, kernel.image), "cuModuleLoadData");
    Loaded loaded{&kernel, nullptr};
    try
    {
        driver.check(driver.cuModuleGetFunction(&loaded.function, module, kernel.symbol),
            "cuModuleGetFunction");
        driver.check(driver.cuFuncSetAttribute(loaded.function,
                         CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                         static_cast<int>(kernel.sharedBytes)),
            "cuFuncSetAttribute");
    }
    catch (...)
    {
        driver.cuModuleUnload(module);
        throw;
    }
    mLoaded.emplace(kernel.name, loaded);
    return loaded;
}

} // namespace nmn::plugin
