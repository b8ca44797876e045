"""Benchmarks: ``python -m benchmarks`` from a checkout. Not installed with the package."""
