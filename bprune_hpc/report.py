"""What a person reads of a sweep: the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .metrics import Metric
from .pruning import Cut

_COLUMNS = (
    ("accuracy", "accuracy"),
    ("nll", "NLL"),
    ("predictive_entropy", "pred. entropy"),
    ("expected_entropy", "exp. entropy"),
    ("mutual_information", "mutual info."),
)


def number_with_error(value: float, error: float) -> str:
    """``value ± error``, with two significant digits of the error.

    >>> number_with_error(0.96875, 0.0219)
    '0.969 ± 0.022'
    """
    if not np.isfinite(value):
        return f"{value}"
    if not np.isfinite(error):
        return f"{value:.4f} ± n/a"
    if error == 0:
        return f"{value:.4f} ± 0"
    rounded = float(f"{error:.1e}")
    decimals = min(max(1 - int(np.floor(np.log10(rounded))), 0), 6)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def table(cuts: Sequence[Cut], metrics: Mapping[str, Metric]) -> str:
    """Table of a sweep: one line a threshold; errors are both kinds combined.

    Parameters
    ----------
    cuts : sequence of Cut, length n_thresholds
    metrics : mapping of str to Metric

    Returns
    -------
    str
        Lines of equal width, without a newline at the end.
    """
    header = ["SNR <=", "pruned", *(title for _, title in _COLUMNS)]
    rows = [header]
    for index, cut in enumerate(cuts):
        row = [f"{cut.threshold:.4g}", f"{100 * cut.pruned_fraction:.2f} %"]
        for name, _ in _COLUMNS:
            metric = metrics[name]
            row.append(number_with_error(metric.value[index], metric.se_combined[index]))
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)
