#include "yat_op.h"

#include <algorithm>

namespace nmn::plugin
{

std::vector<Kernel const*> candidates(
    std::string_view name, YatOp const& op, IoDescription const& io)
{
    std::vector<Kernel const*> found;
    for (Kernel const& kernel : kernels())
    {
        auto const same = [&kernel](Kernel const* other) { return other->tactic == kernel.tactic; };
        if (kernel.op == name && std::none_of(found.begin(), found.end(), same))
        {
            found.push_back(&kernel);
        }
    }
    // An engine may run on a different GPU from the one it was built on, with the same tactics.
    auto const isRefused = [&](Kernel const* candidate)
    {
        return std::any_of(kernels().begin(), kernels().end(), [&](Kernel const& kernel)
            { return kernel.tactic == candidate->tactic && !op.takes(kernel, io); });
    };
    found.erase(std::remove_if(found.begin(), found.end(), isRefused), found.end());
    return found;
}

} // namespace nmn::plugin
