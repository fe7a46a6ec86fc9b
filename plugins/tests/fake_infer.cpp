//! A fake TensorRT of an unsupported version, loaded locally.

#include <cstdint>
#include <dlfcn.h>

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int32_t getInferLibMajorVersion()
{
    return 12;
}

//! Load a plugin library as TensorRT does, and return the number of its creators, or -1.
EXPORTED int32_t fakeInferLoad(char const* path)
{
    void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    using Creators = void const* const* (*)(int32_t&);
    auto const getCreators
        = library ? reinterpret_cast<Creators>(dlsym(library, "getCreators")) : nullptr;
    int32_t count = -1;
    if (getCreators != nullptr)
    {
        getCreators(count);
    }
    return count;
}
