//! The compiled kernels in the library, and their launch.
#pragma once

#include "cuda_driver.h"
#include "kernel_parameters.h"

#include <NvInferRuntime.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

namespace nmn::plugin
{

//! A compile-time argument of a kernel, such as a block size; flags are 0 or 1.
struct Constant
{
    std::string_view name;
    int32_t value;
};

//! Tile of an operand that the tensor memory accelerator copies.
struct TileShape
{
    CUtensorMapDataType type;
    CUtensorMapSwizzle swizzle;
    int32_t elementBytes;
    int32_t rows;
    int32_t columns;
};

//! One kernel for one architecture. embed.py makes the table of kernels from the manifest that
//! `nmn-export kernels build` writes.
struct Kernel
{
    std::string_view name;      //!< The same on all architectures.
    std::string_view op;        //!< The op it computes; empty for kernels that run before it.
    nvinfer1::DataType type;    //!< Of the input and the output.
    int32_t tactic;             //!< Hash of the name: the same in every build.
    int32_t capability;         //!< 89 for compute capability 8.9.
    bool exact;                 //!< Whether it runs only on this capability.
    bool portable;              //!< Whether it is PTX, which the driver compiles for newer GPUs.
    unsigned char const* image; //!< Cubin, or zero-terminated PTX.
    char const* symbol;         //!< Name of its function.
    uint32_t threads;           //!< Per program.
    uint32_t sharedBytes;       //!< Dynamic shared memory per program.
    std::vector<size_t> parameters; //!< Indices of its run-time parameters, in order.
    std::vector<size_t> multiples;  //!< Indices of those that must be multiples of 16.
    std::vector<Constant> constants;
    std::vector<TileShape> tiles; //!< Tiles of its tensor descriptors, which come first.

    //! Return a compile-time argument, or `otherwise` if there is none of this name.
    int32_t constant(std::string_view constantName, int32_t otherwise = 0) const;

    //! Whether it has a run-time parameter.
    template <typename Value> bool takes(TypedParameter<Value> parameter) const
    {
        return std::find(parameters.begin(), parameters.end(), parameter.index) != parameters.end();
    }

    //! Whether a run-time parameter must be a multiple of 16.
    template <typename Value> bool needsMultiple(TypedParameter<Value> parameter) const
    {
        return std::find(multiples.begin(), multiples.end(), parameter.index) != multiples.end();
    }
};

//! All kernels in the library.
std::vector<Kernel> const& kernels();

//! Hash of the manifest.
extern char const* const kMANIFEST_HASH;

//! Description of the kernels, as members of a JSON object.
extern char const* const kKERNELS_DESCRIPTION;

//! Values of the parameters of a kernel, by name. The Triton source determines their types: a value
//! that does not convert does not compile.
class Arguments
{
public:
    using Value = std::variant<std::monostate, void const*, int32_t, float, Matrix>;

    template <typename Element> Element& operator[](TypedParameter<Element> parameter)
    {
        return mValues[parameter.index].template emplace<Element>();
    }

    Value& at(size_t index)
    {
        return mValues[index];
    }

private:
    std::array<Value, Parameter::kNAMES.size()> mValues{};
};

//! Number of programs.
struct Grid
{
    int64_t x;
    int64_t y{1};
};

//! Launch a kernel on a stream.
//!
//! \throws std::logic_error An argument is missing.
//! \throws std::runtime_error The driver reports an error.
void launch(
    Kernel const& kernel, CUfunction function, Grid grid, Arguments& arguments, CUstream stream);

} // namespace nmn::plugin
