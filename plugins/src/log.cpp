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
    std::lock_guard<std::mutex> const lock(sMutex);
    return sFinder == nullptr ? nullptr : sFinder->findLogger();
}

} // namespace

void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept
{
    std::lock_guard<std::mutex> const lock(sMutex);
    sFinder = finder;
}

void logError(std::string const& message) noexcept
{
    try
    {
        std::string const line = "nmn_plugin: " + message;
        if (nvinfer1::ILogger* const logger = findLogger())
        {
            logger->log(nvinfer1::ILogger::Severity::kERROR, line.c_str());
        }
        else
        {
            std::fprintf(stderr, "%s\n", line.c_str());
        }
    }
    catch (...)
    {
        // A message that cannot be made or delivered is no reason to end the process.
    }
}

} // namespace nmn::plugin
