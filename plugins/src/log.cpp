#include "log.h"

#include <cstdio>
#include <mutex>

namespace nmn::plugin
{
namespace
{

std::mutex sMutex;
nvinfer1::ILoggerFinder* sFinder{nullptr};

nvinfer1::ILogger* findLogger()
{
    nvinfer1::ILoggerFinder* finder = nullptr;
    {
        std::lock_guard<std::mutex> const lock(sMutex);
        finder = sFinder;
    }
    return finder == nullptr ? nullptr : finder->findLogger();
}

} // namespace

void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept
{
    std::lock_guard<std::mutex> const lock(sMutex);
    sFinder = finder;
}

void logError(char const* where, char const* what) noexcept
{
    try
    {
        std::string const line = std::string("nmn_plugin: ") + where + ": " + what;
        if (nvinfer1::ILogger* const logger = findLogger())
        {
            logger->log(nvinfer1::ILogger::Severity::kERROR, line.c_str());
            return;
        }
    }
    catch (...)
    {
        // A failure to log must not end the process.
    }
    std::fprintf(stderr, "nmn_plugin: %s: %s\n", where, what);
}

} // namespace nmn::plugin
