//! What the library has to say, and how nothing it throws gets out of it.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>

namespace nmn::plugin
{

//! Remember where TensorRT's logger is found; until then, messages go to the standard error stream.
void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept;

//! Say that something went wrong.
void logError(std::string const& message) noexcept;

//! Return an exception whose message is made of `parts`: the rule, and what was got.
template <typename... Parts> std::invalid_argument refusal(Parts const&... parts)
{
    std::ostringstream message;
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
        logError(std::string(where) + ": " + error.what());
    }
    catch (...)
    {
        logError(std::string(where) + ": an exception of unknown type");
    }
    return fallback;
}

} // namespace nmn::plugin
