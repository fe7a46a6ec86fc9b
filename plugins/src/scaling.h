//! α and ε in the form that the kernels use, see nmn_export/kernels/weights.py.
#pragma once

namespace nmn::plugin
{

//! The denominator is divided by |α|, and ε is moved into the maximum.
struct Scaling
{
    float epsilon;
    float alpha;
    float normScale; //!< 1 / |α|; 0 if α = 0.
    float termFloor; //!< ε / |α|; 0 if α = 0.
    float floor;     //!< ε / |α|, the smallest denominator; infinite if α = 0.
    bool negative;   //!< Whether α < 0.

    //! \throws std::invalid_argument ε is not positive, or |α| is out of range.
    Scaling(float epsilon, float alpha);
};

} // namespace nmn::plugin
