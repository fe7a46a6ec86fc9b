//! Memory and a stream of the first CUDA device, for tests.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <vector>

namespace nmn::plugin::test
{

//! The device; makes its context current.
class Device
{
public:
    //! Whether there is a driver.
    static bool isThere();

    //! \throws std::runtime_error There is no driver, or no device.
    Device();
    ~Device();
    Device(Device const&) = delete;

    CUstream stream() const
    {
        return mStream;
    }

    void synchronize() const;

private:
    CUdevice mDevice{};
    CUstream mStream{};
};

//! Device memory, followed by a margin that must not be written.
class Buffer
{
public:
    //! Allocate `size` bytes, filled with NaN of every type.
    explicit Buffer(size_t size);
    explicit Buffer(std::vector<char> const& content);
    ~Buffer();
    Buffer(Buffer const&) = delete;

    void* data() const;
    std::vector<char> read() const;

    //! Fill with NaN again.
    void clear();

    //! Whether the margin is unchanged.
    bool isMarginIntact() const;

private:
    CUdeviceptr mAddress{};
    size_t mSize;
};

} // namespace nmn::plugin::test
