"""The figure of a sweep: its metrics, and their changes, against the share of weights pruned."""

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


_CHANGES: _Panels = (
    ("drop of accuracy", (("accuracy_drop", "accuracy drop"),)),
    (
        "change (nats)",
        (
            ("nll_rise", "NLL"),
            ("predictive_entropy_change", "predictive entropy"),
            ("expected_entropy_change", "expected entropy"),
            ("mutual_information_change", "mutual information"),
        ),
    ),
)
"""To the first threshold, with bands: those that a file has."""


def plot(path: str | Path, pruned_fraction: Float64Array, metrics: Mapping[str, Metric]) -> None:
    """Draw metrics, and their changes with bands, against the share of weights pruned.

    Bars are 95 % intervals, of a file from an older version one standard error. Bands hold at all
    thresholds together.

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
    of_values = _REGRESSION_PANELS if "rmse" in metrics else _PANELS
    of_changes = [
        (unit, kept)
        for unit, curves in _CHANGES
        if (kept := [curve for curve in curves if _has_band(metrics.get(curve[0]))])
    ]
    n_rows = 1 + bool(of_changes)
    figure = Figure(figsize=(9, 3.6 * n_rows), layout="constrained")
    grid = figure.add_gridspec(n_rows, 2)
    places = [grid[0, 0], grid[0, 1]]
    places += (
        [grid[1, :]] if len(of_changes) == 1 else [grid[1, 0], grid[1, 1]] if of_changes else []
    )
    percent = 100 * pruned_fraction
    for place, (unit, curves) in zip(places, (*of_values, *of_changes), strict=True):
        axes = figure.add_subplot(place)
        for (name, label), marker in zip(curves, "os^v", strict=False):
            metric = metrics[name]
            (line,) = axes.plot(
                percent, metric.value, marker=marker, markersize=4, linewidth=1.2, label=label
            )
            if metric.band_low is not None and metric.band_high is not None:
                axes.fill_between(
                    percent, metric.band_low, metric.band_high,
                    color=line.get_color(), alpha=0.2, linewidth=0,
                )  # fmt: skip
            else:
                axes.errorbar(
                    percent, metric.value, _bars(metric),
                    fmt="none", color=line.get_color(), capsize=2, linewidth=1.2,
                )  # fmt: skip
        axes.set_xlabel("weights pruned (%)")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    has_intervals = metrics[of_values[0][1][0][0]].low is not None
    bars = "bars: 95 % intervals" if has_intervals else "bars: one standard error"
    bands = "; bands: 95 % at all thresholds together" if of_changes else ""
    figure.suptitle(bars + bands, fontsize="small")
    figure.savefig(path, dpi=130)


def _has_band(metric: Metric | None) -> bool:
    return metric is not None and metric.band_low is not None


def _bars(metric: Metric) -> Float64Array:
    """Lengths below and above, shape (2, n_thresholds)."""
    if metric.low is None or metric.high is None:
        return np.stack([metric.se_combined] * 2)
    return np.maximum(np.stack([metric.value - metric.low, metric.high - metric.value]), 0.0)
