#include "scaling.h"

#include "host_constants.h"
#include "log.h"

#include <cmath>
#include <limits>

namespace nmn::plugin
{

Scaling::Scaling(float epsilon_, float alpha_)
    : epsilon(epsilon_), alpha(alpha_), normScale(0.F), termFloor(0.F),
      floor(std::numeric_limits<float>::infinity()), negative(alpha_ < 0.F)
{
    if (!(std::isfinite(epsilon) && epsilon > 0.F))
    {
        throw refusal("epsilon must be positive and finite; got ", epsilon);
    }
    if (alpha == 0.F)
    {
        return;
    }
    float const size = std::fabs(alpha);
    if (!(1.F / kALPHA_LIMIT <= size && size <= kALPHA_LIMIT))
    {
        throw refusal("alpha must be 0, or its absolute value between 2^-60 and 2^60; got ", alpha);
    }
    normScale = 1.F / size;
    termFloor = static_cast<float>(static_cast<double>(epsilon) * static_cast<double>(normScale));
    floor = termFloor;
}

} // namespace nmn::plugin
