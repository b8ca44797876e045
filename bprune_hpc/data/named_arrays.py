"""Files that hold arrays by name: which are the examples and the labels, and reading both.

What belongs here: the names that are known, and the order in which sizes are compared and values
are read. What does not: any file format (``data.npz``, ``data.npy``, ``data.hdf5``), what makes
values usable (``data.values``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .values import (
    Part,
    Request,
    as_stored,
    check_kind,
    check_label_shape,
    read_labels,
)

_EXAMPLES = ("x", "images", "data", "features", "inputs")
_LABELS = ("y", "labels", "label", "targets", "target", "classes")


class NamedArrays(Protocol):
    """Arrays of an open file.

    Attributes
    ----------
    name : str
        Of the file, for messages.
    """

    name: str

    def keys(self) -> Collection[str]:
        """Names that there are."""

    def has(self, key: str) -> bool:
        """Whether there is an array of that name."""

    def declared(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array, of which no value is read."""

    def values(self, key: str) -> NDArray[Any]:
        """An array of labels; text as objects or as NumPy's text."""

    def examples(self, key: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        """A large array of finite numbers, in the type that is given."""


def read_arrays(arrays: NamedArrays, request: Request, sha256: dict[str, str]) -> Part:
    """Examples and labels among the arrays of a file; sizes are compared before values are read.

    Raises
    ------
    DataError
        If there are none, or they are not finite examples with one label each.
    """
    name = arrays.name
    x_key, y_key = choose_keys(arrays, request)
    shape, dtype = arrays.declared(x_key)
    check_kind(shape, dtype, f"{name}: '{x_key}'")
    y = classes = None
    n_columns = 0
    if y_key is not None:
        of_labels = arrays.declared(y_key)[0]
        n_columns = of_labels[1] if len(of_labels) == 2 else 0
        check_label_shape(of_labels, shape[0], (x_key, y_key), name)
        y, classes = read_labels(request.task, arrays.values(y_key), f"{name}: '{y_key}'")
    x = arrays.examples(x_key, request.type_of(dtype))
    return Part(x, y, sha256, as_stored(dtype), classes, n_columns=n_columns)


def choose_keys(arrays: NamedArrays, request: Request) -> tuple[str, str | None]:
    """Keys of examples and labels: those that are named, else those that are known.

    Of the known ones, those of the split come before those of both halves, and ``x_test``,
    ``y_test``, ``x`` and ``y`` before all others; capital letters make no difference. Where one
    of two is named, the other is that of the same form: ``labels_val`` goes with ``images_val``.

    Returns
    -------
    x_key : str
    y_key : str or None
        None where no labels are wanted.

    Raises
    ------
    DataError
        If there are none, or several that could be meant.
    """
    x_key, y_key = request.x_key, request.y_key
    if not request.with_labels:  # keys are those of the test set: this one may have others
        x_key, y_key = x_key if x_key is not None and arrays.has(x_key) else None, None
    for flag, key in (("--x_key", x_key), ("--y_key", y_key)):
        if key is not None and not arrays.has(key):
            raise DataError(f"{arrays.name}: no '{key}' in the {_listed(arrays)}; check {flag}")
    keys, forms = list(arrays.keys()), _forms(request.split, x_key, y_key)
    if x_key is None and y_key is None:
        for pair in ((f"x_{request.split}", f"y_{request.split}"), ("x", "y")):
            found = [_of_any_case(keys, wanted) for wanted in pair]
            if found[0] is not None and (found[1] is not None or not request.with_labels):
                return found[0], found[1] if request.with_labels else None
            if found != [None, None] and pair != ("x", "y"):
                forms.remove("{}")  # what has no split in its name is of other examples
                break
    for form in forms:
        x = _only(arrays, _EXAMPLES, form, x_key, "--x_key")
        y = _only(arrays, _LABELS, form, y_key, "--y_key") if request.with_labels else None
        if x is not None and (y is not None or not request.with_labels):
            return x, y
    if not request.with_labels and len(keys) == 1:
        return keys[0], None
    raise _none_found(arrays, request)


def _of_any_case(keys: Collection[str], wanted: str) -> str | None:
    """The key of that name, or the only one that differs by capital letters alone."""
    found = [key for key in keys if key.lower() == wanted]
    return wanted if wanted in found else found[0] if len(found) == 1 else None


def _forms(split: str, x_key: str | None, y_key: str | None) -> list[str]:
    """Forms of names, as ``{}_test``: that of a key that is given, else those that are known."""
    for key, names in ((x_key, _EXAMPLES), (y_key, _LABELS)):
        for name in names if key is not None else ():
            before, found, after = str(key).lower().rpartition(name)
            if found and (not before or before[-1] in "_./") and (not after or after[0] == "_"):
                return [f"{before}{{}}{after}"]
    return [f"{{}}_{split}", f"{split}_{{}}", "{}"]


def _only(
    arrays: NamedArrays, names: Sequence[str], form: str, given: str | None, flag: str
) -> str | None:
    """The one key of a form, or the one that is given; None where there is none."""
    known = [form.format(name) for name in names]
    keys = arrays.keys()
    found = [given] if given is not None else [key for key in keys if key.lower() in known]
    if len(found) > 1:
        raise DataError(
            f"{arrays.name}: has {' and '.join(map(repr, found))}; say with {flag} which is meant"
        )
    return found[0] if found else None


def _none_found(arrays: NamedArrays, request: Request) -> DataError:
    split = request.split
    needed = [f"'x_{split}' and 'y_{split}'", "'x' and 'y'"]
    if not request.with_labels:
        needed = [f"'x_{split}'", "'x'"]
    flags = "--x_key and --y_key" if request.with_labels else "--x_key"
    return DataError(
        f"{arrays.name}: has the {_listed(arrays)}; needs {', or '.join(needed)}; name others with "
        f"{flags}"
    )


def _listed(arrays: NamedArrays) -> str:
    return f"arrays {', '.join(_first(arrays.keys())) or '(none)'}"


def _first(keys: Collection[str], most: int = 20) -> Iterator[str]:
    for number, key in enumerate(keys):
        if number == most:
            yield f"and {len(keys) - most} more"
            return
        yield key
