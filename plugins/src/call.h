//! One call of an op: what TensorRT tells of its tensors, and where its scratch memory lies.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

namespace nmn::plugin
{

//! Inputs of an op in its two forms: as ONNX has them (X, W, B), or with weights that were prepared
//! when the engine was built (X, planes, column terms, bias and, if spherical, column scales).
enum Input : int32_t
{
    kX = 0,
    kWEIGHT = 1,
    kBIAS = 2,
    kPLANES = 1,
    kCOLUMN_TERM = 2,
    kCOLUMN_BIAS = 3,
    kCOLUMN_SCALE = 4,
};

constexpr int32_t kNB_RAW_INPUTS = 3;

//! Types and sizes of the tensors of one call.
struct Call
{
    nvinfer1::DataType type; //!< Of the input and the output.
    bool channelsLast;       //!< Whether both are.
    bool prepared;           //!< Whether the weights are.
    nvinfer1::Dims x;
    nvinfer1::Dims weight; //!< Of the weight, or of its planes.

    //! \param inputs, nbInputs As TensorRT describes them.
    //! \param x, weight Their sizes, which for a range of shapes are the largest.
    Call(nvinfer1::PluginTensorDesc const* inputs, int32_t nbInputs, nvinfer1::Dims const& x,
        nvinfer1::Dims const& weight);

    bool operator==(Call const& other) const;

    //! Rows of the weight.
    int64_t rows() const
    {
        return weight.d[prepared ? 1 : 0];
    }

    //! Planes that add up to the weight: 3 or 2 of bfloat16 for float32, else 1.
    int32_t planes() const;

    //! Bytes of one element of the input.
    int64_t itemSize() const;
};

//! The name of a type in the names of kernels.
char const* nameOf(nvinfer1::DataType type);

//! Sizes as they are printed, such as 2x3x224x224.
std::string toString(nvinfer1::Dims const& dims);

//! Return a · b for sizes, or the largest number there is.
inline int64_t multiply(int64_t a, int64_t b)
{
    int64_t result = 0;
    return __builtin_mul_overflow(a, b, &result) ? std::numeric_limits<int64_t>::max() : result;
}

//! Product of the sizes from `first` to before `last`, see `multiply`.
int64_t product(nvinfer1::Dims const& dims, int32_t first, int32_t last);

inline int64_t ceilDiv(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

//! Features of prepared weights are padded to a multiple of it, which lets kernels copy 16 bytes at
//! a time, see nmn_export/kernels/weights.py.
constexpr int64_t kALIGNMENT = 16;

inline int64_t align(int64_t size)
{
    return ceilDiv(size, kALIGNMENT) * kALIGNMENT;
}

//! Refuse tensors, and sizes, beyond the reach of the kernels' 32-bit offsets.
void checkReach(char const* what, int64_t elements);

//! Hands out scratch memory, or counts how much would be needed.
class Workspace
{
public:
    //! Return one that counts only.
    static Workspace measure()
    {
        return Workspace();
    }

    //! \throws std::invalid_argument There is no memory.
    explicit Workspace(void* base);

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
