//! What the library has to say, and how nothing it throws gets out of it.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

namespace nmn::plugin
{

//! Remember where TensorRT's logger is found; until then, messages go to the standard error stream.
void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept;

//! Say what went wrong, and where.
void logError(char const* where, char const* what) noexcept;

//! Return an exception whose message is made of `parts`: the rule, and what was got.
template <typename... Parts> std::invalid_argument refusal(Parts const&... parts)
{
    std::ostringstream message;
    message.imbue(std::locale::classic());
    (message << ... << parts);
    return std::invalid_argument(message.str());
}

//! Return what `action` returns; if it throws, say why and return `fallback`.
//!
//! No exception may cross the boundary of the library: the other side may be of another compiler.
template <typename Action, typename Result>
Result guarded(char const* where, Result fallback, Action const& action) noexcept
{
    try
    {
        return action();
    }
    catch (std::exception const& error)
    {
        logError(where, error.what());
    }
    catch (...)
    {
        logError(where, "an exception of unknown type");
    }
    return fallback;
}

} // namespace nmn::plugin
