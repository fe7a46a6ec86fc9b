//! The tests of the plugin library, and the report of their results.
#pragma once

#include "plugin_host.h"

#include <iostream>
#include <string>

namespace nmn::plugin::test
{

//! Counts checks, and prints those that fail.
struct Report
{
    bool hasDevice{false}; //!< Whether there is a CUDA driver.
    int32_t nbChecks{0};
    int32_t nbFailures{0};

    void check(bool isRight, std::string const& what)
    {
        ++nbChecks;
        if (!isRight)
        {
            ++nbFailures;
            std::cout << "FAILED: " << what << std::endl;
        }
    }

    template <typename Value>
    void equal(Value const& got, Value const& wanted, std::string const& what)
    {
        check(got == wanted, what);
    }

    //! Check that the library has just logged one line that contains `part`.
    void says(Library& library, std::string const& part)
    {
        std::string const message = library.logger().take();
        bool const isOneLine = message.find('\n') + 1 == message.size();
        check(message.find(part) != std::string::npos && isOneLine,
            "a line with '" + part + "'; got: " + message);
    }
};

//! Check the parts of the plugin interface that need no GPU.
void testContract(Library& library, Report& report);

//! Check the same of YatAttention, which has no weight, and its errors.
void testAttention(Library& library, Report& report);

//! The tactic of a kernel: engines hold these numbers, so they must not change.
int32_t tacticOf(std::string const& kernel);

//! Check the errors of invalid requests.
void testRefusals(Library& library, Report& report);

//! Run the cases in the subfolders of `folder`, as tests/plugins/written_cases.py writes them, on
//! the current device.
void testEnqueue(Library& library, std::string const& folder, Report& report);

} // namespace nmn::plugin::test
