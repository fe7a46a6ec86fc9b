//! α and ε as the kernels take them, see nmn_export/kernels/weights.py.
#pragma once

namespace nmn::plugin
{

//! |α| divided out of the denominator, and ε moved under the maximum.
struct Scaling
{
    float epsilon;
    float alpha;
    float normScale; //!< 1 / |α|; 0 where α = 0.
    float termFloor; //!< ε / |α|; 0 where α = 0.
    float floor;     //!< ε / |α|, the least denominator; infinite where α = 0.
    bool negative;   //!< Whether α < 0.

    //! \throws std::invalid_argument ε is not positive, or |α| beyond what the kernels take.
    Scaling(float epsilon, float alpha);
};

} // namespace nmn::plugin
