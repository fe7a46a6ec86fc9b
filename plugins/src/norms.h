//! Squared norms of the rows of an input.
#pragma once

#include "context.h"

namespace nmn::plugin
{

//! Take the squared norms of rows, in the stream.
void launchNorms(Loaded const& kernel, Matrix const& rows, float* norms, CUstream stream);

} // namespace nmn::plugin
