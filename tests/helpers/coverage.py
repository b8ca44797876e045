"""How often intervals made of the standard errors of many sweeps hold the true value."""

from __future__ import annotations

import numpy as np

from bprune_hpc.metrics.estimates import Metric


def coverage(
    repeats: list[dict[str, Metric]], truth: dict[str, Metric], error: str, quantile: float
) -> dict[str, float]:
    """Share of repetitions whose interval at the second threshold holds the truth."""
    held: dict[str, list[bool]] = {}
    for metrics in repeats:
        for name, metric in metrics.items():
            distance = abs(metric.value[1] - truth[name].value[1])
            held.setdefault(name, []).append(
                bool(distance <= quantile * getattr(metric, error)[1] + 1e-12)
            )
    return {name: float(np.mean(values)) for name, values in held.items()}
