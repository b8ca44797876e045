"""Stands in for the package where a job script is tested and not a sweep: quick, on real ranks."""
