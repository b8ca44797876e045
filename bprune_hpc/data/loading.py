"""Data sets: what stands in files, as arrays the networks here take.

What belongs here: choosing how a path is read, and fitting the examples' shape to a network's
input. What does not: what is inside the package (``data.embedded``), file formats (``data.npz``,
``data.hdf5``, ``data.cifar10``, ``data.tfrecord``), networks, batches, ranks; nothing is downloaded
(compute nodes have no internet).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import cifar10, embedded, hdf5, npz, tfrecord
from .values import Part, Split

DATASETS = ("auto", "digits", "diabetes", "npz", "mnist", "cifar10", "tfrecord", "hdf5")
_EMBEDDED = {"digits": embedded.digits, "diabetes": embedded.diabetes}
_OF_CLASSES = ("digits", "mnist", "cifar10", "tfrecord")
_MOST_COUNTS = 12
_MNIST_FILE = "mnist.npz"
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSet:
    """Examples and their labels.

    Attributes
    ----------
    x : float32 array, shape (n, ...)
        Examples; images of bytes are scaled to [0, 1].
    y : int64 or float64 array, shape (n,)
        Class of each example, from 0; or, for a regression, its target, or (n, n_targets).
    name : str
        One of :data:`DATASETS`, never ``"auto"``.
    sha256 : dict of str to str
        Digest of every file read, by its path.
    scaling : str
        Type of the examples as they are stored, and what was done to them.
    """

    x: NDArray[np.float32]
    y: NDArray[Any]
    name: str
    sha256: dict[str, str]
    scaling: str


def load(
    dataset: str = "auto",
    path: str | None = None,
    split: Split = "test",
    *,
    subtract_pixel_mean: bool = False,
    task: str = "classification",
) -> DataSet:
    """Read one half of a data set.

    Reading takes about as much memory as the float32 examples that are given back.

    Parameters
    ----------
    dataset : str
        ``digits`` or ``diabetes`` (inside the package), ``npz`` or ``hdf5`` (``x_test``/``y_test``,
        ``x_train``/``y_train``, or ``x``/``y`` for both halves), ``mnist`` (``mnist.npz`` as Keras
        distributes it), ``cifar10`` (the directory of Python batches), ``tfrecord`` (BPrune's
        fields) or ``auto`` (without a path what is inside the package for the task, else by the
        file's ending or the directory's content).
    path : str, optional
        The file; for ``mnist`` also a directory that holds it, for ``cifar10`` the directory, for
        ``tfrecord`` also a directory or a pattern such as ``Test_Rank_*.tfrecords``.
    split : {"test", "train"}
        ``test`` are the held-out examples: of what is in the package, every fifth.
    subtract_pixel_mean : bool
        Of ``cifar10``: subtract the training set's mean image.
    task : {"classification", "regression"}
        Whether labels are classes or numbers.

    Returns
    -------
    DataSet

    Raises
    ------
    DataError
        If a file is missing, damaged, or does not hold finite examples with one label each.
    """
    name = _by_name(path, task) if dataset == "auto" else dataset
    if name not in DATASETS:
        raise DataError(f"no data set is called '{name}'; choose one of {', '.join(DATASETS)}")
    if name in _EMBEDDED and path is not None:
        raise DataError(f"{path}: the {name} are inside the package; leave the path out")
    if task == "regression" and name in _OF_CLASSES:
        raise DataError(
            f"{path or name}: data set '{name}' has classes, a regression needs numbers to "
            "predict; give them as npz or hdf5, or pass --task=classification"
        )
    if task == "classification" and name == "diabetes":
        raise DataError(
            "diabetes: its targets are numbers, a classification needs classes; give another data "
            "set, or pass --task=regression"
        )
    if name not in _EMBEDDED and path is None:
        raise DataError(f"data set '{name}' is a file; give its path")
    if subtract_pixel_mean and name != "cifar10":
        logger.warning("--subtract_pixel_mean applies to cifar10, not to %s: no change", name)
    try:
        x, y, sha256, scaling = _read(name, path or "", split, subtract_pixel_mean, task)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read ({reason}); check the path") from None
    return DataSet(x, y, name, sha256, scaling)


def _read(name: str, path: str, split: Split, subtract_pixel_mean: bool, task: str) -> Part:
    if name in _EMBEDDED:
        return _EMBEDDED[name](split)
    if name == "cifar10":
        return cifar10.read(Path(path), split, subtract_pixel_mean)
    if name == "tfrecord":
        return tfrecord.read(path, split)
    if name == "hdf5":
        return hdf5.read(Path(path), split, task)
    file = Path(path)
    if name == "mnist" and file.is_dir():
        file /= _MNIST_FILE
    return npz.read(file, split, task)


def describe(examples: DataSet, path: str | None) -> str:
    """What a data set is, in one line: where from, how many, of which shape, range and labels.

    Parameters
    ----------
    path : str or None
        Where it was read; None for what is inside the package.
    """
    x, y = examples.x, examples.y
    shape = " x ".join(map(str, x.shape[1:]))
    found = (
        f"{path or 'the embedded ' + examples.name}: {len(x)} examples of {shape}, "
        f"{examples.scaling}: {x.min():.4g} to {x.max():.4g}, mean {x.mean(dtype=np.float64):.4g}; "
    )
    if not np.issubdtype(y.dtype, np.integer):
        return (
            f"{found}targets {y.min():.4g} to {y.max():.4g}, mean {y.mean():.4g}, standard "
            f"deviation {y.std():.4g}"
        )
    classes, counts = np.unique(y, return_counts=True)
    numbers = f"{classes[0]} to {classes[-1]}"
    if len(classes) <= _MOST_COUNTS:
        return f"{found}labels {numbers}, of each {', '.join(map(str, counts))}"
    return f"{found}{len(classes)} labels {numbers}, {counts.min()} to {counts.max()} of each"


def fit_input(
    x: NDArray[np.float32], input_shape: Sequence[int | None] | None
) -> NDArray[np.float32]:
    """Reshape examples to what a network takes, when their number of values is right.

    Parameters
    ----------
    x : float32 array, shape (n, ...)
    input_shape : sequence of int or None
        Shape of the network's input, the examples' axis first; None where it is open. None
        instead of a sequence: the network takes any shape.

    Returns
    -------
    float32 array, shape (n, *input_shape[1:])

    Raises
    ------
    DataError
        If an example's number of values does not fit.
    """
    if input_shape is None:
        return x
    wanted, found = tuple(input_shape[1:]), x.shape[1:]
    if len(wanted) == len(found) and all(
        w is None or w == f for w, f in zip(wanted, found, strict=True)
    ):
        return x
    # Flat or with the last axis of one channel: anything else would tear images apart silently.
    fixed = tuple(size for size in wanted if size is not None)
    same_number = np.prod(fixed, dtype=np.int64) == np.prod(found, dtype=np.int64)
    if len(fixed) == len(wanted) and same_number and _is_same_layout(found, fixed):
        return x.reshape(len(x), *fixed)
    shown = ", ".join("any" if size is None else str(size) for size in wanted)
    raise DataError(
        f"one example of the data has shape ({', '.join(map(str, found))}), the network takes "
        f"({shown}); give the data set the network was trained on"
    )


def _is_same_layout(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether two shapes of as many values differ by flattening or a last axis of one alone."""
    without_channel = [shape[:-1] if shape[-1:] == (1,) else shape for shape in (found, wanted)]
    return min(len(shape) for shape in without_channel) <= 1 or len(set(without_channel)) == 1


def check_labels(y: NDArray[Any], n_classes: int) -> None:
    """Raise unless every label is the number of one of a network's classes.

    Parameters
    ----------
    y : integer array, shape (n,)
    n_classes : int

    Raises
    ------
    DataError
        With the first label that is not an integer in [0, n_classes).
    """
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"labels are {y.dtype}, not integers; save class numbers from 0")
    wrong = np.flatnonzero((y < 0) | (y >= n_classes))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"label {int(y[first])} of example {first} is not a class of the network, which has "
            f"{n_classes}; labels run from 0 to {n_classes - 1}"
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
    if file.is_dir():
        batches = cifar10.directory_of(file)
        if any((batches / n).is_file() for n in (cifar10.TEST_FILE, *cifar10.TRAIN_FILES)):
            return "cifar10"
        if any(entry.suffix in tfrecord.SUFFIXES for entry in file.iterdir()):
            return "tfrecord"
    elif not file.exists() and not has_magic(path):
        raise DataError(f"{path}: no such file; check the path")
    raise DataError(f"{path}: the name does not tell which data set this is; pass --dataset")
