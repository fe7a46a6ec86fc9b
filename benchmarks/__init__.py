"""Benchmarks. `results/` has the results, each with a description of the machine."""
