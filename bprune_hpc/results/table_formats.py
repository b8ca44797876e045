"""The table of a sweep to take along: CSV, LaTeX, Markdown.

What belongs here: text. What does not: which numbers there are (``results.table``).
"""

from __future__ import annotations

import csv
import io

from ..metrics.definitions import ALL
from .table import ResultsTable, columns_of, numbers

FORMATS = ("csv", "latex", "markdown")


def as_csv(found: ResultsTable) -> str:
    """Every metric with its errors and interval, a row for each threshold, in full precision."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [name for name, metric in found.metrics.items() if metric.value.ndim == 1]
    parts = ("", "_se", "_se_data", "_low", "_high")
    kept = {
        name: [part for part in parts if not part.endswith(("low", "high")) or
               found.metrics[name].low is not None]
        for name in names
    }  # fmt: skip
    header = [f"{name}{part}" for name in names for part in kept[name]]
    writer.writerow([found.heading.rpartition(" ")[0] or found.heading, "pruned_fraction", *header])
    for index, label in enumerate(found.labels):
        row = [label, repr(float(found.pruned_fraction[index]))]
        for name in names:
            metric = found.metrics[name]
            values = {"": metric.value, "_se": metric.se, "_se_data": metric.se_data,
                      "_low": metric.low, "_high": metric.high}  # fmt: skip
            for part in kept[name]:
                of_part = values[part]
                assert of_part is not None
                row.append(repr(float(of_part[index])))
        writer.writerow(row)
    return buffer.getvalue()


def as_markdown(found: ResultsTable) -> str:
    """The printed table's columns."""
    rows = _rows(found)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---:|" * len(rows[0]))
    return "".join(f"{line}\n" for line in lines)


def as_latex(found: ResultsTable) -> str:
    r"""The same for ``\usepackage{booktabs}``."""
    header, *rows = [[_latex(cell) for cell in row] for row in _rows(found)]
    columns = "r" * len(header)
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _rows(found: ResultsTable) -> list[list[str]]:
    columns = columns_of(found.metrics)
    rows = [[found.heading, "pruned", *(_titled(name, title) for name, title in columns)]]
    of_columns = [numbers(name, found.metrics[name]) for name, _ in columns]
    for index, label in enumerate(found.labels):
        row = [label, f"{100 * found.pruned_fraction[index]:.2f} %"]
        failed = index < len(found.failures) and found.failures[index]
        rows.append([*row, *("failed" if failed else column[index] for column in of_columns)])
    return rows


def _titled(name: str, title: str) -> str:
    units = ALL[name].units
    return title if units in ("", "1") else f"{title} ({units})"


def _latex(text: str) -> str:
    signs = {"%": r"\%", "±": r"$\pm$", "<=": r"$\le$", ">=": r"$\ge$", "_": r"\_", "&": r"\&"}
    for sign, written in signs.items():
        text = text.replace(sign, written)
    return text
