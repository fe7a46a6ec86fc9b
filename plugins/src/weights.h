//! Weights as the kernels take them: prepared when the engine was built, or at every call.
#pragma once

#include "call.h"
#include "context.h"
#include "scaling.h"

namespace nmn::plugin
{

//! Sizes of a weight, in the terms of `prepare_weight_kernel`.
struct WeightShape
{
    int64_t rows;     //!< Prototypes or filters.
    int64_t features; //!< Of one tap.
    int64_t taps;     //!< 1 for a matrix.

    //! Elements from one row of a plane to the next.
    int64_t rowStride() const
    {
        return multiply(taps, align(features));
    }

    //! Elements from one plane to the next.
    int64_t planeStride() const
    {
        return multiply(rows, rowStride());
    }
};

//! Where the parts of prepared weights lie.
struct Weights
{
    void const* planes;
    void const* columnTerm;
    void const* columnScale;
    void const* columnBias;

    //! \param inputs The tensors of the call, or `nullptr` to find out how much scratch is needed.
    Weights(Call const& call, WeightShape const& shape, bool spherical, void const* const* inputs,
        Workspace& workspace);
};

//! Whether a raw weight can be used as it is: 16-bit, one tap, and its rows aligned.
bool usesInPlace(Call const& call, WeightShape const& shape);

//! Prepare the raw weights of a call, in the stream.
void prepareWeights(Loaded const& kernel, Call const& call, WeightShape const& shape,
    Scaling const& scaling, bool spherical, void const* const* inputs, Weights const& weights,
    CUstream stream);

} // namespace nmn::plugin
