"""The table of a sweep, as a person reads it: made of a results file alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from .._typing import Float64Array
from ..job.provenance import fault_of
from ..metrics.definitions import ALL
from ..metrics.estimates import Metric, number_with_error, number_with_interval
from ..posterior.pruning import labels_of
from ..streams import show
from .choice import StoredChoice, read_choice
from .contents_free_energy import COLUMNS
from .file import STATE, open_results
from .metric_variables import stored_metric

_COLUMNS = (
    ("accuracy", "accuracy"),
    ("nll", "NLL"),
    ("predictive_entropy", "pred. entropy"),
    ("expected_entropy", "exp. entropy"),
    ("mutual_information", "mutual info."),
)
_REGRESSION_COLUMNS = (
    ("rmse", "RMSE"),
    ("nll", "NLL"),
    ("crps", "CRPS"),
    ("coverage_90", "in 90 %"),
    ("sharpness", "sharpness"),
)


LEGEND = "± is one standard error, [ ] a 95 % interval: of draws and test set together."
ENERGY_LEGEND = "Free energy: nats, summed over the training data, ± of draws alone."


def numbers(name: str, metric: Metric) -> list[str]:
    """A column: shares with their intervals, which are not symmetric, all else with an error.

    Parameters
    ----------
    name : str
        Of the metric.
    metric : Metric
        Of one dimension.

    Returns
    -------
    list of str
        One for each threshold.
    """
    if ALL[name].interval == "share" and metric.low is not None and metric.high is not None:
        return list(map(number_with_interval, metric.value, metric.low, metric.high))
    return list(map(number_with_error, metric.value, metric.se_combined))


def columns_of(metrics: Mapping[str, Metric]) -> Sequence[tuple[str, str]]:
    """Metrics that a table shows, and their titles."""
    return _REGRESSION_COLUMNS if "rmse" in metrics else _COLUMNS


def table(
    labels: Sequence[str],
    pruned_fraction: Float64Array,
    metrics: Mapping[str, Metric],
    heading: str = "SNR <=",
    failures: Sequence[str] = (),
    more: Sequence[tuple[str, Sequence[str]]] = (),
) -> str:
    """Table of a sweep: one line a threshold; errors are of draws and test set together.

    Parameters
    ----------
    labels : sequence of str
        Of the points of the sweep: thresholds, say.
    pruned_fraction : float array, shape (n_thresholds,)
    metrics : mapping of str to Metric
    heading : str
        Of the column of labels.
    failures : sequence of str
        What failed at each threshold, empty where nothing did; stands in place of numbers.
    more : sequence of (str, sequence of str)
        Further columns behind: title, and an entry for each threshold.

    Returns
    -------
    str
        Lines of equal width, without a newline at the end.
    """
    columns = columns_of(metrics)
    failure_at = dict(enumerate(failures))
    titles = [title for _, title in columns] + [title for title, _ in more]
    rows = [[heading, "pruned", *titles]]
    column_numbers = [numbers(name, metrics[name]) for name, _ in columns]
    column_numbers += [list(entries) for _, entries in more]
    for index, label in enumerate(labels):
        row = [label, f"{100 * pruned_fraction[index]:.2f} %"]
        row += [column[index] for column in column_numbers if not failure_at.get(index)]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    lines = [
        f"{line}  failed: {failure_at[index]}" if failure_at.get(index) else line
        for index, line in enumerate(lines, -1)
    ]
    width = max(map(len, lines))
    lines = [line.ljust(width) for line in lines]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


@dataclass(frozen=True)
class ResultsTable:
    """What a results file has to say.

    Attributes
    ----------
    labels : list of str
        Of the points of the sweep.
    pruned_fraction : float64 array, shape (n_thresholds,)
    metrics : mapping of str to Metric
    heading : str
        What the labels are of, as a heading of their column.
    failures : list of str
        What failed at each threshold, empty where nothing did.
    remarks : list of str
        Sentences that belong below the table.
    choice : StoredChoice or None
    free_energy : mapping of str to (float64 array, float64 array)
        Value and Monte Carlo error of each number of it, nats; empty where it was not asked for.
    """

    labels: list[str]
    pruned_fraction: Float64Array
    metrics: Mapping[str, Metric]
    heading: str
    failures: list[str]
    remarks: list[str]
    choice: StoredChoice | None
    free_energy: Mapping[str, tuple[Float64Array, Float64Array]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The table, and what its signs mean."""
        more = [
            (COLUMNS[name], list(map(number_with_error, *found)))
            for name, found in self.free_energy.items()
        ]
        of_sweep = self.labels, self.pruned_fraction, self.metrics, self.heading, self.failures
        legend = f"{LEGEND} {ENERGY_LEGEND}" if more else LEGEND
        return f"{table(*of_sweep, more)}\n{legend}"

    def show(self, n_choices: int = 1) -> None:
        """Print them.

        Parameters
        ----------
        n_choices : int
            Choices that are shown together, of which this file's is one.
        """
        show(self.text)
        for remark in self.remarks:
            show(remark)
        if self.choice is not None:
            show(self.choice.text if n_choices < 2 else self.choice.among(n_choices))


def read_table(path: str | Path) -> ResultsTable:
    """Read a results file, once: the whole of it is compared with its digest.

    Raises
    ------
    ResultsError
        If there is no such file, or it is not a sweep's.
    """
    with open_results(path) as file:
        group = file["metrics"]
        rest = file.attrs.get("rest")
        is_share = "heading" in file.get("requested_fraction", file).attrs
        points = file["requested_fraction" if is_share else "threshold"]
        doubt = file.attrs.get("doubt")
        identity = json.loads(file[STATE].attrs["identity"]) if STATE in file else {}
        fault = fault_of(identity, "evaluator")
        remarks = [
            f"partial: {rest}" if rest is not None else None,
            f"warning: {doubt}" if doubt is not None else None,
            f"warning: was made with evaluator {fault}; sweep again" if fault else None,
            group.attrs.get("target_text"),
            file["free_energy"].attrs["text"] if "free_energy" in file else None,
        ]
        return ResultsTable(
            labels=labels_of(points[()], is_share=is_share),
            pruned_fraction=file["sparsity/pruned_fraction"][()],
            metrics={name: stored_metric(group, name) for name in group if f"{name}_se" in group},
            heading=str(points.attrs.get("heading", "SNR <=")),
            failures=[text.decode() for text in (file["failure"][()] if "failure" in file else ())],
            remarks=[str(text) for text in remarks if text is not None],
            choice=read_choice(file),
            free_energy=_free_energy(file["free_energy"]) if "free_energy" in file else {},
        )


def _free_energy(group: Any) -> dict[str, tuple[Float64Array, Float64Array]]:
    """What the table shows of it; closed forms have no error."""
    found = {}
    for name in COLUMNS:
        if name in group:
            value = group[name][()]
            error = group[f"{name}_se"][()] if f"{name}_se" in group else np.zeros(len(value))
            found[name] = value, error
    return found
