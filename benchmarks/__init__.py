"""Benchmarks: the service beside its alternatives, on one machine and in one run."""
