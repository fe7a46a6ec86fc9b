//! The CUDA driver, opened when it is first needed: the library loads where there is none.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace nmn::plugin
{

//! The functions of the driver that the library calls.
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
    //! \throws std::runtime_error There is none, or it is too old.
    static Driver const& get();

    //! \throws std::runtime_error `result` is not a success; the message says so, and of what.
    void check(CUresult result, char const* what) const;
};

} // namespace nmn::plugin
