//! Allocation of scratch memory.
#pragma once

#include "log.h"
#include "sizes.h"

#include <cstddef>

namespace nmn::plugin
{

//! Allocates scratch memory from TensorRT's workspace, or only measures how much is needed.
class Workspace
{
public:
    //! Return a workspace that only measures; its allocations are null.
    static Workspace measure()
    {
        return Workspace();
    }

    //! \throws std::invalid_argument `base` is null.
    explicit Workspace(void* base) : mBase(static_cast<char*>(base))
    {
        if (base == nullptr)
        {
            throw refusal("TensorRT must provide the requested scratch memory; got none");
        }
    }

    template <typename Element> Element* take(int64_t elements)
    {
        return static_cast<Element*>(takeBytes(elements * static_cast<int64_t>(sizeof(Element))));
    }

    void* takeBytes(int64_t bytes)
    {
        void* const taken = mBase == nullptr ? nullptr : mBase + mSize;
        mSize += ceilDiv(bytes, kGRAIN) * kGRAIN;
        return taken;
    }

    //! Bytes allocated so far.
    size_t size() const
    {
        return static_cast<size_t>(mSize);
    }

private:
    static constexpr int64_t kGRAIN = 256;

    Workspace() = default;

    char* mBase{nullptr};
    int64_t mSize{0};
};

} // namespace nmn::plugin
