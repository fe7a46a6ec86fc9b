//! What the library says of itself to those who have not loaded TensorRT.
#pragma once

//! Marks what the library shows; all else is hidden.
#define NMN_EXPORTED __attribute__((visibility("default")))

//! Return a line of JSON: versions, and what there are kernels for. Lives as long as the library.
extern "C" NMN_EXPORTED char const* nmnPluginDescription();
