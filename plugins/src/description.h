//! Description of the library for programs that have not loaded TensorRT.
#pragma once

//! Marks exported symbols; all others are hidden.
#define NMN_EXPORTED __attribute__((visibility("default")))

//! Return one line of JSON: versions, ops and kernels. It is valid as long as the library is
//! loaded.
extern "C" NMN_EXPORTED char const* nmnPluginDescription();
