"""What a person reads of a sweep: its table, and a figure.

    python -m bprune_hpc.report results/sweep.h5 --plot sweep.png

Made of a results file alone; needs no MPI and no TensorFlow.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .argument_file import ArgumentParser
from .comm import Comm, run
from .errors import ResultsError
from .identity import fault_of
from .metrics import Metric
from .pruning import labels_of
from .results import STATE, open_results

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

logger = logging.getLogger(__name__)
Floats = NDArray[np.float64]


def number_with_error(value: float, error: float) -> str:
    """``value ± error``, with two significant digits of the error.

    >>> number_with_error(0.96875, 0.0219)
    '0.969 ± 0.022'
    """
    if not np.isfinite(value):
        return f"{value}"
    if not np.isfinite(error) or error == 0:
        return f"{value + 0.0:.4f} ± {'0' if error == 0 else 'n/a'}"
    rounded = float(f"{error:.1e}")
    decimals = max(1 - int(np.floor(np.log10(rounded))), 0)
    if decimals > 6:
        return f"{value + 0.0:.6f} ± {error:.0e}"
    return f"{value + 0.0:.{decimals}f} ± {error:.{decimals}f}"


def table(
    labels: Sequence[str],
    pruned_fraction: Floats,
    metrics: Mapping[str, Metric],
    heading: str = "SNR <=",
    failures: Sequence[str] = (),
) -> str:
    """Table of a sweep: one line a threshold; errors are both kinds combined.

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

    Returns
    -------
    str
        Lines of equal width, without a newline at the end.
    """
    columns = _REGRESSION_COLUMNS if "rmse" in metrics else _COLUMNS
    said = dict(enumerate(failures))
    rows = [[heading, "pruned", *(title for _, title in columns)]]
    for index, label in enumerate(labels):
        row = [label, f"{100 * pruned_fraction[index]:.2f} %"]
        for name, _ in columns if not said.get(index) else ():
            metric = metrics[name]
            row.append(number_with_error(metric.value[index], metric.se_combined[index]))
        rows.append(row)
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    lines = [
        f"{line}  failed: {said[index]}" if said.get(index) else line
        for index, line in enumerate(lines, -1)
    ]
    lines = [line.ljust(max(map(len, lines))) for line in lines]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def show(text: str) -> None:
    """Print, also where standard output cannot write "±"."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    print(text)


def plot(path: str | Path, pruned_fraction: Floats, metrics: Mapping[str, Metric]) -> None:
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


@dataclass(frozen=True)
class Findings:
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
    """

    labels: list[str]
    pruned_fraction: Floats
    metrics: Mapping[str, Metric]
    heading: str
    failures: list[str]
    remarks: list[str]

    def show(self) -> None:
        """Print them."""
        show(table(self.labels, self.pruned_fraction, self.metrics, self.heading, self.failures))
        for remark in self.remarks:
            show(remark)


def read_findings(path: str | Path) -> Findings:
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
            file["choice"].attrs["text"] if "choice" in file else None,
        ]
        return Findings(
            labels=labels_of(points[()], is_share=is_share),
            pruned_fraction=file["sparsity/pruned_fraction"][()],
            metrics={
                name: Metric(group[name][()], group[f"{name}_se"][()], group[f"{name}_se_data"][()])
                for name in group
                if f"{name}_se" in group
            },
            heading=str(points.attrs.get("heading", "SNR <=")),
            failures=[text.decode() for text in (file["failure"][()] if "failure" in file else ())],
            remarks=[str(text) for text in remarks if text is not None],
        )


def report(comm: Comm, argv: Sequence[str]) -> int:
    """Print the table of a results file and draw its figure, on rank 0."""
    parser = ArgumentParser(prog="python -m bprune_hpc.report", description=__doc__)
    parser.add_argument("file", help="results file of a sweep")
    parser.add_argument("--plot", metavar="FILE", help="figure to draw: .png, .pdf, .svg")

    def on_root() -> None:
        arguments: Any = parser.parse(argv)
        found = read_findings(arguments.file)
        found.show()
        if arguments.plot:
            try:
                plot(arguments.plot, found.pruned_fraction, found.metrics)
            except (OSError, ValueError, ImportError) as error:
                raise ResultsError(f"{arguments.plot}: cannot be drawn: {error}") from error

    comm.from_root(on_root)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bprune_hpc.report``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: report(comm, arguments))


if __name__ == "__main__":
    sys.exit(main())
