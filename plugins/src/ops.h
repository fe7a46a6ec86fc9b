//! The list of all ops in the library.
#pragma once

#include "attention.h"
#include "conv.h"
#include "conv_transpose.h"
#include "dense.h"

namespace nmn::plugin
{

//! A template with all ops as its arguments.
template <template <typename...> class Template>
using WithAllOps = Template<Dense, Conv, ConvTranspose, Attention>;

} // namespace nmn::plugin
