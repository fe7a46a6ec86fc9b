#include "norms.h"

#include "sizes.h"

namespace nmn::plugin
{

void launchNorms(Loaded const& kernel, Matrix const& rows, float* norms, CUstream stream)
{
    Arguments arguments;
    arguments[Parameter::input_pointer] = rows.data;
    arguments[Parameter::norm_pointer] = norms;
    arguments[Parameter::row_dim] = static_cast<int32_t>(rows.rows);
    arguments[Parameter::feat_dim] = static_cast<int32_t>(rows.columns);
    arguments[Parameter::input_row_stride] = static_cast<int32_t>(rows.stride);
    Grid const grid{ceilDiv(rows.rows, kernel.kernel->constant("BLOCK_SIZE_ROW"))};
    launch(*kernel.kernel, kernel.function, grid, arguments, stream);
}

} // namespace nmn::plugin
