"""The figure of a sweep: its metrics against the share of weights pruned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .._typing import Float64Array
from ..metrics.estimates import Metric

_Panels = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
_PANELS: _Panels = (
    (
        "accuracy",
        (
            ("accuracy", "averaged predictive"),
            ("accuracy_single_draw", "single draw"),
            ("accuracy_mean_weights", "mean weights"),
        ),
    ),
    (
        "nats",
        (
            ("nll", "NLL"),
            ("predictive_entropy", "predictive entropy"),
            ("expected_entropy", "expected entropy"),
        ),
    ),
)
_REGRESSION_PANELS: _Panels = (
    (
        "units of the target",
        (
            ("rmse", "RMSE"),
            ("crps", "CRPS"),
            ("sharpness", "predictive standard deviation"),
        ),
    ),
    (
        "share of targets inside",
        tuple((f"coverage_{level}", f"central {level} % interval") for level in (50, 90, 95)),
    ),
)


def plot(path: str | Path, pruned_fraction: Float64Array, metrics: Mapping[str, Metric]) -> None:
    """Draw accuracies and entropies, or errors and coverages, against the share of weights pruned.

    Parameters
    ----------
    path : path
        Of the figure; its ending chooses the format.
    pruned_fraction : float array, shape (n_thresholds,)
    metrics : mapping of str to Metric

    Raises
    ------
    ImportError
        If matplotlib is missing: ``pip install "bprune_hpc[plot]"``.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f'figures need matplotlib: pip install "bprune_hpc[plot]" ({error})'
        ) from error
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = _REGRESSION_PANELS if "rmse" in metrics else _PANELS
    for axes, (unit, curves) in zip(np.ravel(figure.subplots(1, 2)), panels, strict=True):
        for (name, label), marker in zip(curves, "os^", strict=True):
            metric = metrics[name]
            axes.errorbar(
                100 * pruned_fraction, metric.value, metric.se_combined,
                marker=marker, markersize=4, capsize=2, linewidth=1.2, label=label,
            )  # fmt: skip
        axes.set_xlabel("weights pruned (%)")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
