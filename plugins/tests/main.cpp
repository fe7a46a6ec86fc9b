//! Tests of the plugin library, without TensorRT.
//!
//! Usage: nmn_plugin_test LIBRARY [CASES]. Given a folder of cases, runs those too, for which a GPU
//! is needed. Exits with 0 if all is well, 1 if a check failed, 2 if something is missing.

#include "device.h"
#include "tests.h"

//! Run all tests; also called from Python, with a stand-in for the driver.
extern "C" __attribute__((visibility("default"))) int nmnPluginTest(
    char const* library, char const* cases)
{
    using namespace nmn::plugin::test;
    try
    {
        Library opened(library);
        Report report;
        report.hasDevice = Device::isThere();
        if (cases == nullptr)
        {
            testContract(opened, report);
            testAttention(opened, report);
            testRefusals(opened, report);
        }
        else
        {
            testEnqueue(opened, cases, report);
        }
        std::cout << report.nbChecks << " checks, " << report.nbFailures << " failed" << std::endl;
        return report.nbFailures == 0 ? 0 : 1;
    }
    catch (std::exception const& error)
    {
        std::cout << "error: " << error.what() << std::endl;
        return 2;
    }
}

int main(int argc, char** argv)
{
    if (argc < 2 || argc > 3)
    {
        std::cout << "Usage: nmn_plugin_test LIBRARY [CASES]" << std::endl;
        return 2;
    }
    int const contract = nmnPluginTest(argv[1], nullptr);
    return contract != 0 || argc == 2 ? contract : nmnPluginTest(argv[1], argv[2]);
}
