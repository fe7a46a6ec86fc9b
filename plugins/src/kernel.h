//! A compiled kernel, as it lies in the library, and the values it is launched with.
#pragma once

#include "cuda_driver.h"

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

namespace nmn::plugin
{

//! Parameters of all kernels, under the names that they have in the Triton sources.
enum class Parameter : uint8_t
{
#define NMN_PARAMETER(name) name,
#include "kernel_parameters.inc"
#undef NMN_PARAMETER
    kNB_PARAMETERS
};

//! A parameter that was compiled in, such as a block size; flags are 0 or 1.
struct Constant
{
    std::string_view name;
    int32_t value;
};

//! What the tensor memory accelerator is told of an operand.
struct TileShape
{
    CUtensorMapDataType type;
    CUtensorMapSwizzle swizzle;
    int32_t elementBytes;
    int32_t rows;
    int32_t columns;
};

//! One kernel for one architecture. The table of them is made from the manifest of
//! `nmn-export kernels build`, see embed.py.
struct Kernel
{
    std::string_view name;      //!< The same for every architecture.
    std::string_view op;        //!< The op it computes; empty for what comes before.
    nvinfer1::DataType type;    //!< Of the input and the output.
    int32_t tactic;             //!< Hash of the name: stable from build to build.
    int32_t capability;         //!< 89 for compute capability 8.9.
    bool exact;                 //!< Whether it runs on this capability alone.
    bool portable;              //!< Whether it is PTX, which drivers of newer GPUs compile.
    unsigned char const* image; //!< Cubin, or PTX ending in a zero.
    char const* symbol;         //!< Name of its function.
    uint32_t threads;           //!< Per program.
    uint32_t sharedBytes;       //!< Dynamic shared memory per program.
    std::vector<Parameter> parameters;
    std::vector<Constant> constants;
    std::vector<TileShape> tiles; //!< Of the parameters that are descriptors, which come first.

    //! Return a compiled-in parameter, or `otherwise` if it has none of the name.
    int32_t constant(std::string_view constantName, int32_t otherwise = 0) const;

    //! Whether it is launched with the parameter.
    bool takes(Parameter parameter) const;
};

//! All kernels in the library.
std::vector<Kernel> const& kernels();

//! Hash of the manifest they were made from.
extern char const* const kMANIFEST_HASH;

//! What there is, as members of a JSON object.
extern char const* const kKERNELS_DESCRIPTION;

//! Rows of elements in device memory, each of which follows the one before after `stride`.
struct Matrix
{
    void const* data;
    int64_t rows;
    int64_t columns;
    int64_t stride;
};

//! Values of the parameters of a kernel, by name.
class Arguments
{
public:
    using Value = std::variant<std::monostate, void const*, int32_t, float, Matrix>;

    Value& operator[](Parameter parameter)
    {
        return mValues[static_cast<size_t>(parameter)];
    }

private:
    std::array<Value, static_cast<size_t>(Parameter::kNB_PARAMETERS)> mValues{};
};

//! How many programs run.
struct Grid
{
    int64_t x;
    int64_t y{1};
};

//! Put a kernel into a stream.
//!
//! \throws std::logic_error An argument is missing.
//! \throws std::runtime_error The driver refuses the launch.
void launch(
    Kernel const& kernel, CUfunction function, Grid grid, Arguments& arguments, CUstream stream);

} // namespace nmn::plugin
