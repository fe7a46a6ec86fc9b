//! A fake CUDA driver for tests without a GPU. Its memory is host memory. Launches call a function
//! of the test, which executes the kernel.

#include <cuda.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

// cuda.h maps some names to versioned ones, which are those that programs look up.
#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace
{

//! Given the image and the function of a kernel, its grid and pointers to its arguments.
using Launcher = int (*)(void const* image, char const* symbol, uint32_t gridX, uint32_t gridY,
    uint32_t threads, uint32_t sharedBytes, void** arguments);

Launcher sLauncher = nullptr;
int sCapability = 80;
int sProcessors = 2;

//! Content of a fake tensor map.
struct Map
{
    void* data;
    uint64_t sizes[2];
    uint64_t pitch;
    uint32_t box[2];
    uint32_t type;
    uint32_t swizzle;
};

static_assert(sizeof(Map) <= sizeof(CUtensorMap));

struct Function
{
    void const* image;
    std::string symbol;
};

} // namespace

//! Set the device and the function that executes kernels.
EXPORTED void fakeCudaSetUp(Launcher launcher, int capability, int processors)
{
    sLauncher = launcher;
    sCapability = capability;
    sProcessors = processors;
}

EXPORTED CUresult cuInit(unsigned)
{
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuGetErrorString(CUresult, char const** text)
{
    *text = "an error of the fake driver";
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuDeviceGet(CUdevice* device, int)
{
    *device = 0;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice)
{
    *context = reinterpret_cast<CUcontext>(&sLauncher);
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuDevicePrimaryCtxRelease(CUdevice)
{
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuCtxSetCurrent(CUcontext)
{
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuCtxGetCurrent(CUcontext* context)
{
    return cuDevicePrimaryCtxRetain(context, 0);
}

EXPORTED CUresult cuCtxGetId(CUcontext, unsigned long long* id)
{
    // Each kind of device has its own context.
    *id = static_cast<unsigned long long>(1000 * sCapability + sProcessors);
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuCtxGetDevice(CUdevice* device)
{
    return cuDeviceGet(device, 0);
}

EXPORTED CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice)
{
    switch (attribute)
    {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        *value = sCapability / 10;
        break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        *value = sCapability % 10;
        break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        *value = sProcessors;
        break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
        *value = 227 * 1024;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuModuleLoadData(CUmodule* module, void const* image)
{
    *module = static_cast<CUmodule>(const_cast<void*>(image));
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, char const* name)
{
    // One for each image, as long as the process lives.
    static std::map<void const*, Function> sFunctions;
    auto const [found, isNew] = sFunctions.try_emplace(module, Function{module, name});
    *function = reinterpret_cast<CUfunction>(&found->second);
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuModuleUnload(CUmodule)
{
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int)
{
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuLaunchKernel(CUfunction handle, unsigned gridX, unsigned gridY, unsigned,
    unsigned threads, unsigned, unsigned, unsigned sharedBytes, CUstream, void** arguments, void**)
{
    auto const* const function = reinterpret_cast<Function const*>(handle);
    if (gridX == 0 || gridY == 0)
    {
        return CUDA_ERROR_INVALID_VALUE;
    }
    int const result = sLauncher == nullptr ? 1
                                            : sLauncher(function->image, function->symbol.c_str(),
                                                  gridX, gridY, threads, sharedBytes, arguments);
    return result == 0 ? CUDA_SUCCESS : CUDA_ERROR_LAUNCH_FAILED;
}

EXPORTED CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type,
    cuuint32_t rank, void* data, cuuint64_t const* sizes, cuuint64_t const* pitches,
    cuuint32_t const* box, cuuint32_t const*, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
    CUtensorMapL2promotion, CUtensorMapFloatOOBfill)
{
    if (rank != 2 || reinterpret_cast<uintptr_t>(data) % 16 != 0 || pitches[0] % 16 != 0)
    {
        return CUDA_ERROR_INVALID_VALUE;
    }
    Map const made{data, {sizes[0], sizes[1]}, pitches[0], {box[0], box[1]},
        static_cast<uint32_t>(type), static_cast<uint32_t>(swizzle)};
    std::memcpy(map, &made, sizeof(made));
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuStreamCreate(CUstream* stream, unsigned)
{
    *stream = nullptr;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuStreamDestroy(CUstream)
{
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuStreamSynchronize(CUstream)
{
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuMemAlloc(CUdeviceptr* address, size_t size)
{
    constexpr size_t kALIGNMENT = 256;
    void* const memory = std::aligned_alloc(kALIGNMENT, (size / kALIGNMENT + 1) * kALIGNMENT);
    *address = reinterpret_cast<CUdeviceptr>(memory);
    return memory == nullptr ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

EXPORTED CUresult cuMemFree(CUdeviceptr address)
{
    std::free(reinterpret_cast<void*>(address));
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuMemsetD8(CUdeviceptr address, unsigned char value, size_t count)
{
    std::memset(reinterpret_cast<void*>(address), value, count);
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuMemsetD32Async(CUdeviceptr address, unsigned value, size_t count, CUstream)
{
    for (size_t i = 0; i < count; ++i)
    {
        reinterpret_cast<uint32_t*>(address)[i] = value;
    }
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuMemcpyHtoD(CUdeviceptr to, void const* from, size_t size)
{
    std::memcpy(reinterpret_cast<void*>(to), from, size);
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t size)
{
    std::memcpy(to, reinterpret_cast<void const*>(from), size);
    return CUDA_SUCCESS;
}
