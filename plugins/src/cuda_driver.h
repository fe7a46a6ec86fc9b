//! The CUDA driver. It is loaded on first use, so that the library also loads without a driver.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace nmn::plugin
{

//! The driver functions that the library calls.
struct Driver
{
    decltype(&::cuGetErrorString) cuGetErrorString;
    decltype(&::cuCtxGetCurrent) cuCtxGetCurrent;
    decltype(&::cuCtxGetId) cuCtxGetId;
    decltype(&::cuCtxGetDevice) cuCtxGetDevice;
    decltype(&::cuDeviceGetAttribute) cuDeviceGetAttribute;
    decltype(&::cuModuleLoadData) cuModuleLoadData;
    decltype(&::cuModuleGetFunction) cuModuleGetFunction;
    decltype(&::cuModuleUnload) cuModuleUnload;
    decltype(&::cuFuncSetAttribute) cuFuncSetAttribute;
    decltype(&::cuLaunchKernel) cuLaunchKernel;
    decltype(&::cuMemsetD32Async) cuMemsetD32Async;
    decltype(&::cuTensorMapEncodeTiled) cuTensorMapEncodeTiled;

    //! Return the driver.
    //!
    //! \throws std::runtime_error There is no driver, or it is too old.
    static Driver const& get();

    //! \throws std::runtime_error `result` is an error of the function `what`.
    void check(CUresult result, char const* what) const;
};

} // namespace nmn::plugin
