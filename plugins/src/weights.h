//! Weights of the kernels: prepared when the engine was built, or at every call.
#pragma once

#include "context.h"
#include "io_description.h"
#include "scaling.h"
#include "workspace.h"

namespace nmn::plugin
{

//! Sizes of a weight, as in `prepare_weight_kernel`.
struct WeightShape
{
    int64_t rows;     //!< Prototypes or filters.
    int64_t features; //!< Per tap.
    int64_t taps;     //!< 1 for a matrix.
    //! Groups, if a raw weight is [groups, features, rows / groups, taps]; 0 if it is
    //! [rows, features, taps].
    int64_t groups{0};

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

//! Addresses of the parts of prepared weights.
struct Weights
{
    void const* planes;
    void const* columnTerm;
    void const* columnScale;
    void const* columnBias;

    //! \param inputs The input tensors, or `nullptr` to measure the scratch memory.
    Weights(IoDescription const& io, WeightShape const& shape, bool spherical,
        void const* const* inputs, Workspace& workspace);
};

//! Whether a raw weight needs no planes: it is 16-bit, has one tap, and its rows are contiguous and
//! aligned.
bool usesInPlace(IoDescription const& io, WeightShape const& shape);

//! Launch the preparation of raw weights.
void prepareWeights(Loaded const& kernel, IoDescription const& io, WeightShape const& shape,
    Scaling const& scaling, bool spherical, void const* const* inputs, Weights const& weights,
    CUstream stream);

} // namespace nmn::plugin
