#include "cuda_driver.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace nmn::plugin
{
namespace
{

constexpr char const* kLIBRARY = "libcuda.so.1";

template <typename Function> void find(void* library, char const* name, Function& function)
{
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (function == nullptr)
    {
        throw std::runtime_error(
            std::string("NVIDIA's driver must be of CUDA 12 or newer; it has no ") + name);
    }
}

Driver open()
{
    // Never closed, because kernels may run until the process ends.
    void* const library = dlopen(kLIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
    {
        throw std::runtime_error(
            std::string("running needs an NVIDIA GPU and its driver; got no ") + kLIBRARY);
    }
    Driver driver{};
    find(library, "cuGetErrorString", driver.cuGetErrorString);
    find(library, "cuCtxGetCurrent", driver.cuCtxGetCurrent);
    find(library, "cuCtxGetId", driver.cuCtxGetId);
    find(library, "cuCtxGetDevice", driver.cuCtxGetDevice);
    find(library, "cuDeviceGetAttribute", driver.cuDeviceGetAttribute);
    find(library, "cuModuleLoadData", driver.cuModuleLoadData);
    find(library, "cuModuleGetFunction", driver.cuModuleGetFunction);
    find(library, "cuModuleUnload", driver.cuModuleUnload);
    find(library, "cuFuncSetAttribute", driver.cuFuncSetAttribute);
    find(library, "cuLaunchKernel", driver.cuLaunchKernel);
    find(library, "cuMemsetD32Async", driver.cuMemsetD32Async);
    find(library, "cuTensorMapEncodeTiled", driver.cuTensorMapEncodeTiled);
    return driver;
}

} // namespace

Driver const& Driver::get()
{
    static Driver const driver = open();
    return driver;
}

void Driver::check(CUresult result, char const* what) const
{
    if (result == CUDA_SUCCESS)
    {
        return;
    }
    char const* text = nullptr;
    cuGetErrorString(result, &text);
    throw std::runtime_error(std::string(what) + " failed: " + (text ? text : "unknown error"));
}

} // namespace nmn::plugin
