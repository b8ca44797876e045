"""Data sets in text files of one example a line: with commas, semicolons, tabs or blanks.

What belongs here: which columns are labels, and whether the first line is a header. What does not:
parsing, which is NumPy's; what makes values usable (``data.values``).
"""

from __future__ import annotations

import csv
import io
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .values import (
    AS_STORED,
    Part,
    Request,
    check_finite,
    open_binary,
    read_labels,
    sha256_of,
)

SUFFIXES = (".csv", ".tsv", ".data")
_DELIMITERS = (",", ";", "\t")
_LABEL_COLUMNS = ("y", "label", "labels", "target", "targets", "class")
_LONGEST_LINE = 2**26
_LEAST_COUNTED = 4
"""Columns from which on a first line 0, 1, 2, ... is taken for a header without names."""
_INTEGER = re.compile(r"-?\d+")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Columns:
    """What the columns of a table are.

    Attributes
    ----------
    n : int
    names : list of str or None
        None where there is no header.
    targets : list of int
        Numbers of the columns that are labels.
    is_told : bool
        Whether a flag or the column's name says that it is the label.
    """

    n: int
    names: list[str] | None
    targets: list[int]
    is_told: bool

    def of(self, column: int) -> str:
        return f"column {column}" if self.names is None else f"column {self.names[column]!r}"


def read(file: Path, request: Request) -> Part:
    """Examples and labels of a table: the last column is the label, or those that are named.

    Raises
    ------
    DataError
        If the file is missing, damaged, has fields that are no numbers (other than class names in
        the label's column) or lines of different lengths, or it is not clear what is the label.
    """
    with open_binary(file) as binary:
        digest = sha256_of(binary)
        with io.TextIOWrapper(binary, "utf-8-sig", newline="") as stream:
            try:
                return _read(str(file), stream, request, {str(file): digest})
            except (UnicodeDecodeError, csv.Error, MemoryError) as error:
                reason = " ".join(str(error).split()) or "out of memory"
                raise DataError(
                    f"{file}: cannot be read as a table of text ({reason}); save it as CSV in UTF-8"
                ) from None


def _read(name: str, stream: Any, request: Request, sha256: dict[str, str]) -> Part:
    lines = [stream.readline(_LONGEST_LINE) for _ in range(2)]
    if not lines[0].strip():
        raise DataError(f"{name}: has no first line; save one example a line")
    if "\0" in lines[0]:
        raise DataError(f"{name}: holds bytes that are not text; save it as CSV in UTF-8")
    found = max(_DELIMITERS, key=lines[0].count)
    delimiter = found if found in lines[0].strip() else None  # any number of blanks
    first, second = (
        next(csv.reader([line], delimiter=delimiter), []) if delimiter else line.split()
        for line in lines
    )  # fmt: skip
    columns = _columns(name, first, second, request)
    stream.seek(0)
    texts: dict[str, int] = {}
    is_class = request.task == "classification" and len(columns.targets) == 1

    def code_of(text: str) -> float:
        return texts.setdefault(text.strip().strip('"'), len(texts))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of no data
            table = np.loadtxt(
                stream,
                np.float64,
                comments=None,
                delimiter=delimiter,
                quotechar='"',
                skiprows=int(columns.names is not None),
                converters={columns.targets[0]: code_of} if is_class else None,
                ndmin=2,
                encoding=None,  # NumPy 1 would give converters bytes
            )
    except ValueError as error:
        raise DataError(f"{name}: {_said(error, columns)}") from None
    if not table.size:
        raise DataError(f"{name}: has no example behind its header; save one example a line")
    if table.shape[1] != columns.n:
        raise DataError(
            f"{name}: the first line has {columns.n} fields, the examples {table.shape[1]}; save "
            "as many in each line"
        )
    chosen = np.delete(table, columns.targets, axis=1)
    x = np.asarray(chosen, request.type_of(chosen.dtype))
    check_finite(x, f"{name}: a column")
    y = classes = None
    if request.with_labels:
        labels = table[:, columns.targets]
        if is_class:
            known = np.array(list(texts), object)
            if "" in texts:
                first_empty = int(np.flatnonzero(labels[:, 0] == texts[""])[0])
                raise DataError(f"{name}: example {first_empty} has no label; mend or drop it")
            labels = _numbers(known)[labels[:, 0].astype(np.intp)]
            if not columns.is_told:
                _check_last(name, table[:, 0], labels, columns)
        where = ", ".join(map(columns.of, columns.targets))
        y, classes = read_labels(request.task, labels, f"{name}: {where}")
        logger.info("%s: %s %s", name, where, "is the label" if is_class else "has the labels")
    return Part(x, y, sha256, f"text {AS_STORED}", classes, n_columns=len(columns.targets))


def _check_last(name: str, first: NDArray[Any], last: NDArray[Any], columns: _Columns) -> None:
    """Refuse labels of the last column where the first could as well be theirs, or better."""
    of_first, of_last = set(np.unique(first).tolist()), set(np.unique(last).tolist())
    which = f"{columns.of(0)} or {columns.of(columns.n - 1)}"
    if len(of_last) == 1 < len(of_first):
        raise DataError(
            f"{name}: the last column has {last[0]} in each example; say with --target_columns "
            f"which is the label ({which}?)"
        )
    if len(of_last) > 1 and of_first == of_last:
        raise DataError(
            f"{name}: the first and the last column have the same values, as classes have; say "
            f"with --target_columns which is the label ({which}?)"
        )


def _numbers(texts: NDArray[Any]) -> NDArray[Any]:
    """The texts as numbers where all of them are."""
    try:
        return texts.astype(np.float64)
    except ValueError:
        return texts


def _columns(name: str, first: Sequence[str], second: Sequence[str], request: Request) -> _Columns:
    n = len(first)
    fields = [field.strip() for field in first]
    counted = n >= _LEAST_COUNTED and fields == [str(number) for number in range(n)]
    named = [at for at, field in enumerate(fields) if not _is_number(field)]
    # One text in the first line may be a class's name: then it stands over another one.
    is_header = counted or len(named) == n or (
        len(named) == 1
        and len(second) == n
        and (_is_number(second[named[0]]) or fields[named[0]].lower() in _LABEL_COLUMNS)
    )  # fmt: skip
    if len(named) > 1 and not is_header:
        raise DataError(
            f"{name}: the first line has the texts {fields[named[0]]!r} and {fields[named[1]]!r} "
            "beside numbers: neither names nor an example; mend it, or name all columns"
        )
    names = fields if is_header else None
    if is_header and fields[0] in ("", "Unnamed: 0"):
        raise DataError(
            f"{name}: the first column has no name: numbers of the lines, as pandas writes them? "
            "Save without them (index=False), or name the column"
        )
    if counted:
        logger.info("%s: the first line, 0 to %d, is taken for a header", name, n - 1)
    targets, is_told = _targets(name, n, names, request)
    if n - len(targets) < 1:
        raise DataError(f"{name}: has {n} columns in its first line; needs examples and labels")
    return _Columns(n, names, targets, is_told)


def _targets(
    name: str, n: int, names: list[str] | None, request: Request
) -> tuple[list[int], bool]:
    """Numbers of the columns that are labels, none of a table without; and whether that is told."""
    is_without = not request.with_labels and request.n_values == n
    if is_without:
        return [], True
    if request.target_columns:
        found = [_number_of(name, text, n, names) for text in request.target_columns]
        if len(set(found)) < len(found):
            raise DataError(f"{name}: --target_columns names a column twice; name each once")
        return found, True
    by_name = [
        at for at, known in enumerate(names or []) if known.lower().strip('"') in _LABEL_COLUMNS
    ]
    if len(by_name) > 1:
        listed = " and ".join(repr((names or [])[at]) for at in by_name)
        raise DataError(f"{name}: {listed} could be the label; say which with --target_columns")
    if by_name:
        return by_name, True
    if not request.with_labels and request.n_values != n - 1:
        return [], True
    return [n - 1], False


def _number_of(name: str, text: str, n: int, names: list[str] | None) -> int:
    if names is not None and names.count(text) == 1:
        return names.index(text)
    if _INTEGER.fullmatch(text) and -n <= int(text) < n and text not in (names or []):
        return int(text) % n
    there = ", ".join(map(repr, (names or [])[:20])) or f"0 to {n - 1}, without names"
    raise DataError(f"{name}: has no column '{text}'; its columns: {there}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _said(error: ValueError, columns: _Columns) -> str:
    """NumPy's message in one line of ours; examples are numbered from 0."""
    text = " ".join(str(error).split())
    found = re.match(r"could not convert string (.*) to float64 at row (\d+), column (\d+)", text)
    if found is not None:
        at = int(found[3]) - 1
        column = columns.of(at) if at < columns.n else f"column {at}"
        return (
            f"example {found[2]} has {found[1]} in {column}, which is not a number; mend it, or "
            "name the label's column with --target_columns"
        )
    found = re.match(r"the number of columns changed from (\d+) to (\d+) at row (\d+)", text)
    if found is not None:
        return (
            f"example {int(found[3]) - 1} has {found[2]} fields, those before {found[1]}; save as "
            "many in each line"
        )
    return f"cannot be read as a table ({text[:200]}); save one example a line"
