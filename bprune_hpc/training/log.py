"""Numbers of each epoch in a file: a table, or what TensorBoard shows.

A training that is gone on with may take epochs again that it had taken: what was written of them is
dropped first. What does not belong here: lines for people (``training.report``).
"""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..files.atomic_write import put
from ..tensorflow_import import import_tensorflow

LOGS = ("csv", "tensorboard")
CSV_FILE = "log.csv"
EVENTS = r"events\.out\.tfevents\..+"
COLUMNS = ("epoch", "step", "nll", "kl", "learning_rate", "pruned_fraction", "validation_nll",
           "validation_nll_se")  # fmt: skip
"""Epochs and steps that are done; means over the epoch, and what is at its end."""

Row = Mapping[str, float | int | None]


class Log(Protocol):
    """Takes a row at the end of each epoch."""

    def write(self, row: Row) -> None:
        """Write one, at once; a number that there is none of is None."""

    def close(self) -> None:
        """Write no more."""


class _Table:
    def __init__(self, directory: Path, n_epochs: int) -> None:
        path = directory / CSV_FILE
        before = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        lines = before.splitlines(keepends=True)[1:]
        kept = [line for line in lines if line.endswith("\n") and _epoch_of(line) <= n_epochs]
        put(path, ["".join([",".join(COLUMNS) + "\n", *kept]).encode()])
        self._file = path.open("a", newline="")
        self._rows = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")

    def write(self, row: Row) -> None:
        self._rows.writerow(row)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _epoch_of(line: str) -> float:
    try:
        return int(line.partition(",")[0])
    except ValueError:
        return float("inf")


class _Events:
    def __init__(self, directory: Path, step: int) -> None:
        tf = import_tensorflow()
        self._v1 = tf.compat.v1
        with tf.Graph().as_default():  # for which this writer is
            # Two jobs in one second would have one name; files are read in the order of theirs.
            suffix = f".{time.time_ns():020d}"
            self._writer = self._v1.summary.FileWriter(str(directory), filename_suffix=suffix)
        start = self._v1.SessionLog(status=self._v1.SessionLog.START)
        self._writer.add_session_log(start, step + 1)  # drops what was written of later steps
        self._writer.flush()

    def write(self, row: Row) -> None:
        values = [
            self._v1.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if value is not None and name not in ("epoch", "step")
        ]
        self._writer.add_summary(self._v1.Summary(value=values), row["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def open_log(kind: str, directory: Path, n_epochs: int, step: int) -> Any:
    """Open the log of a training of which so many epochs and steps are done.

    Parameters
    ----------
    kind : str
        One of :data:`LOGS`.

    Returns
    -------
    Log
    """
    return _Table(directory, n_epochs) if kind == "csv" else _Events(directory, step)
