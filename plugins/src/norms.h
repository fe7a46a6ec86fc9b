//! Squared norms of the rows of an input.
#pragma once

#include "context.h"

namespace nmn::plugin
{

//! Launch the kernel that computes the squared norms of rows.
void launchNorms(Loaded const& kernel, Matrix const& rows, float* norms, CUstream stream);

} // namespace nmn::plugin
