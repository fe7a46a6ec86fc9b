#include "device.h"

#include <algorithm>
#include <dlfcn.h>
#include <stdexcept>
#include <string>

namespace nmn::plugin::test
{
namespace
{

constexpr size_t kMARGIN = 4096;

//! The byte of which NaN is made, in all three types.
constexpr unsigned char kNAN_BYTE = 0xFF;

void* library()
{
    static void* const opened = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return opened;
}

//! Call a function of the driver.
template <typename Function, typename... Arguments>
void call(char const* name, Arguments... arguments)
{
    auto* const function
        = library() ? reinterpret_cast<Function*>(dlsym(library(), name)) : nullptr;
    if (function == nullptr)
    {
        throw std::runtime_error(std::string("the CUDA driver has no ") + name);
    }
    CUresult const result = function(arguments...);
    if (result != CUDA_SUCCESS)
    {
        throw std::runtime_error(std::string(name) + " failed: " + std::to_string(result));
    }
}

} // namespace

bool Device::isThere()
{
    return library() != nullptr;
}

Device::Device()
{
    CUcontext context{};
    call<decltype(cuInit)>("cuInit", 0U);
    call<decltype(cuDeviceGet)>("cuDeviceGet", &mDevice, 0);
    call<decltype(cuDevicePrimaryCtxRetain)>("cuDevicePrimaryCtxRetain", &context, mDevice);
    call<decltype(cuCtxSetCurrent)>("cuCtxSetCurrent", context);
    call<decltype(cuStreamCreate)>(
        "cuStreamCreate", &mStream, static_cast<unsigned>(CU_STREAM_NON_BLOCKING));
}

Device::~Device()
{
    try
    {
        call<decltype(cuStreamDestroy)>("cuStreamDestroy_v2", mStream);
        call<decltype(cuDevicePrimaryCtxRelease)>("cuDevicePrimaryCtxRelease_v2", mDevice);
    }
    catch (std::exception const&)
    {
        // The process ends.
    }
}

void Device::synchronize() const
{
    call<decltype(cuStreamSynchronize)>("cuStreamSynchronize", mStream);
}

Buffer::Buffer(size_t size) : mSize(size)
{
    call<decltype(cuMemAlloc)>("cuMemAlloc_v2", &mAddress, mSize + kMARGIN);
    call<decltype(cuMemsetD8)>("cuMemsetD8_v2", mAddress, kNAN_BYTE, mSize + kMARGIN);
}

Buffer::Buffer(std::vector<char> const& content) : Buffer(content.size())
{
    call<decltype(cuMemcpyHtoD)>(
        "cuMemcpyHtoD_v2", mAddress, static_cast<void const*>(content.data()), content.size());
}

Buffer::~Buffer()
{
    try
    {
        call<decltype(cuMemFree)>("cuMemFree_v2", mAddress);
    }
    catch (std::exception const&)
    {
        // The process ends.
    }
}

void* Buffer::data() const
{
    return reinterpret_cast<void*>(mAddress);
}

void Buffer::clear()
{
    call<decltype(cuMemsetD8)>("cuMemsetD8_v2", mAddress, kNAN_BYTE, mSize);
}

std::vector<char> Buffer::read() const
{
    std::vector<char> content(mSize);
    call<decltype(cuMemcpyDtoH)>(
        "cuMemcpyDtoH_v2", static_cast<void*>(content.data()), mAddress, mSize);
    return content;
}

bool Buffer::isMarginIntact() const
{
    std::vector<unsigned char> margin(kMARGIN);
    call<decltype(cuMemcpyDtoH)>(
        "cuMemcpyDtoH_v2", static_cast<void*>(margin.data()), mAddress + mSize, kMARGIN);
    return std::all_of(
        margin.begin(), margin.end(), [](unsigned char byte) { return byte == kNAN_BYTE; });
}

} // namespace nmn::plugin::test
