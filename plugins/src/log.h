//! Error messages, and the guard that keeps exceptions inside the library.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

namespace nmn::plugin
{

//! Set the source of TensorRT's logger. Without one, messages go to standard error.
void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept;

//! Log an error of the function or op `where`.
void logError(char const* where, char const* what) noexcept;

//! Return an exception whose message consists of `parts`: the rule, and what was got.
template <typename... Parts> std::invalid_argument refusal(Parts const&... parts)
{
    std::ostringstream message;
    message.imbue(std::locale::classic());
    (message << ... << parts);
    return std::invalid_argument(message.str());
}

//! Return the result of `action`. If it throws, log the error and return `fallback`.
//!
//! No exception may leave the library, because the caller may be built by another compiler.
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
