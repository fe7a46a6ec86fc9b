"""Kernels compiled ahead of time, without a GPU, and the audit of what was compiled."""
