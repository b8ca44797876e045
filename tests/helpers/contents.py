"""Contents of a small results file, made up."""

from __future__ import annotations

import numpy as np

from bprune_hpc import results
from bprune_hpc.results.file import Contents, Variable


def contents(value: float = 1.0) -> Contents:
    return Contents(
        attrs={"schema": results.SCHEMA, "status": "complete", "n_draws": 4},
        coordinates={
            "threshold": Variable(("threshold",), np.array([0.0, 0.5])),
            "requested_fraction": Variable(("threshold",), np.array([np.nan, np.nan])),
            "layer": Variable(("layer",), ["a/kernel", "b/kernel", "c"]),
        },
        groups={
            "metrics": {"nll": Variable(("threshold",), np.array([value, 2.0]), {"units": "nat"})},
            "sparsity": {"fraction": Variable(("threshold", "layer"), np.ones((2, 3)))},
            "snr/a/kernel": {"counts": Variable(("bin",), np.arange(5))},
            "run": {"launcher": Variable((), "mpirun"), "n_ranks": Variable((), 3)},
        },
        group_attrs={"metrics": {"note": "said"}},
    )
