"""Benchmarks: this package and comparable tools on the same data, in one run."""
