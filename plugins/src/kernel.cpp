#include "kernel.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace nmn::plugin
{
namespace
{

//! A tensor descriptor as Triton passes it: the map, then the shape and the strides.
struct Descriptor
{
    alignas(64) CUtensorMap map;
    std::array<int32_t, 2> shape;
    std::array<int64_t, 2> strides;
};

constexpr size_t kMOST_DESCRIPTORS = 2;

Descriptor describe(Driver const& driver, Matrix const& matrix, TileShape const& tile)
{
    Descriptor descriptor{};
    descriptor.shape = {static_cast<int32_t>(matrix.rows), static_cast<int32_t>(matrix.columns)};
    descriptor.strides = {matrix.stride, 1};
    // The driver numbers axes from the innermost.
    cuuint64_t const sizes[]
        = {static_cast<cuuint64_t>(matrix.columns), static_cast<cuuint64_t>(matrix.rows)};
    cuuint64_t const pitches[] = {static_cast<cuuint64_t>(matrix.stride * tile.elementBytes)};
    cuuint32_t const box[]
        = {static_cast<cuuint32_t>(tile.columns), static_cast<cuuint32_t>(tile.rows)};
    cuuint32_t const steps[] = {1, 1};
    driver.check(
        driver.cuTensorMapEncodeTiled(&descriptor.map, tile.type, 2, const_cast<void*>(matrix.data),
            sizes, pitches, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, tile.swizzle,
            CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
        "cuTensorMapEncodeTiled");
    return descriptor;
}

//! Pointers to the arguments, in the order of the kernel's own parameters.
class PackedArguments
{
public:
    PackedArguments(Driver const& driver, Kernel const& kernel, Arguments& arguments)
    {
        size_t nbDescriptors = 0;
        for (size_t const index : kernel.parameters)
        {
            auto& value = arguments.at(index);
            if (auto* const matrix = std::get_if<Matrix>(&value))
            {
                if (nbDescriptors < kernel.tiles.size())
                {
                    Descriptor& descriptor = mDescriptors[nbDescriptors];
                    descriptor = describe(driver, *matrix, kernel.tiles[nbDescriptors++]);
                    add({&descriptor.map, &descriptor.shape[0], &descriptor.shape[1],
                        &descriptor.strides[0], &descriptor.strides[1]});
                }
                else
                {
                    add({&matrix->data});
                }
            }
            else if (std::holds_alternative<std::monostate>(value))
            {
                throw std::logic_error(std::string("argument ") + Parameter::kNAMES[index] + " of "
                                       + kernel.symbol + " is missing");
            }
            else
            {
                std::visit([this](auto& held) { add({&held}); }, value);
            }
        }
        // Triton's scratch memory, which these kernels do not use.
        add({&mScratch, &mScratch});
    }

    void** data()
    {
        return mPointers.data();
    }

private:
    static constexpr size_t kMOST_POINTERS = 64;

    void add(std::initializer_list<void*> pointers)
    {
        if (mSize + pointers.size() > kMOST_POINTERS)
        {
            throw std::logic_error("a kernel has too many parameters");
        }
        std::copy(pointers.begin(), pointers.end(), mPointers.begin() + mSize);
        mSize += pointers.size();
    }

    std::array<Descriptor, kMOST_DESCRIPTORS> mDescriptors{};
    std::array<void*, kMOST_POINTERS> mPointers{};
    size_t mSize{0};
    void* mScratch{nullptr};
};

} // namespace

int32_t Kernel::constant(std::string_view constantName, int32_t otherwise) const
{
    auto const found = std::find_if(constants.begin(), constants.end(),
        [constantName](Constant const& constant) { return constant.name == constantName; });
    return found == constants.end() ? otherwise : found->value;
}

void launch(
    Kernel const& kernel, CUfunction function, Grid grid, Arguments& arguments, CUstream stream)
{
    Driver const& driver = Driver::get();
    PackedArguments packed(driver, kernel, arguments);
    driver.check(driver.cuLaunchKernel(function, static_cast<uint32_t>(grid.x),
                     static_cast<uint32_t>(grid.y), 1, kernel.threads, 1, 1, kernel.sharedBytes,
                     stream, packed.data(), nullptr),
        kernel.symbol);
}

} // namespace nmn::plugin
