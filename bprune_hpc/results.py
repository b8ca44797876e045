"""The results file: HDF5 in the schema ``bprune-hpc/1``, written whole and read as labelled arrays.

What a dataset is called, what its dimensions are and how a file gets to its place belong here;
how its numbers come about does not.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ResultsError, WriteError

if TYPE_CHECKING:
    import xarray

SCHEMA = "bprune-hpc/1"


@dataclass(frozen=True)
class Variable:
    """An array with named dimensions.

    Attributes
    ----------
    dims : tuple of str
    data : array, str, or list of str
    attrs : mapping
        ``units`` and ``long_name``, say.
    """

    dims: tuple[str, ...]
    data: Any
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """All that a results file holds.

    Attributes
    ----------
    attrs : mapping
        Of the file.
    coordinates : mapping of str to Variable
        One-dimensional labels, each of the dimension of its own name or of another.
    groups : mapping of str to (mapping of str to Variable)
        Datasets by group; ``"snr/LAYER"`` is a group in a group.
    group_attrs : mapping of str to mapping
        Attributes of groups.
    """

    attrs: Mapping[str, Any]
    coordinates: Mapping[str, Variable]
    groups: Mapping[str, Mapping[str, Variable]]
    group_attrs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before any work whether a results file can be put at a path; changes nothing.

    Raises
    ------
    ResultsError
        If its directory, or the nearest one above it, cannot be written, or the path is that of
        a directory.
    """
    target = Path(path)
    if os.fspath(path).endswith(os.sep) or target.is_dir():
        raise ResultsError(f"{target}: is a directory; give a file name with --output")
    directory = target.resolve().parent
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    try:
        with tempfile.NamedTemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ResultsError(
            f"{target}: cannot be written ({error.strerror}); choose another --output or --data_dir"
        ) from error


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; on success it takes the target's place at once."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], contents: Contents) -> None:
    """Write a results file whole: what stood at the path stays until the new file is complete.

    Raises
    ------
    WriteError
        If the file system refuses.
    """
    image = _image(contents)
    target = Path(path).resolve()  # a link stays a link
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(target) as temporary:
            temporary.write_bytes(image)
    except OSError as error:
        raise WriteError(
            f"{target}: cannot be written ({error.strerror}); free space, or choose another file"
        ) from error


def _image(contents: Contents) -> bytes:
    """Bytes of the HDF5 file, made in memory.

    A write that fails under the HDF5 library (a full disk) leaves it in a state in which the
    process crashes at its end; a write of plain bytes does not.
    """
    import h5py

    with h5py.File("image", "w", driver="core", backing_store=False) as file:
        _fill(file, contents)
        file.flush()
        return file.id.get_file_image()


def _fill(file: Any, contents: Contents) -> None:
    file.attrs.update(contents.attrs)
    _fill_group(file, contents.coordinates)
    for name, variables in contents.groups.items():
        group = file.require_group(name)
        group.attrs.update(contents.group_attrs.get(name, {}))
        # Each group carries the labels it uses, since readers open one group at a time.
        labels = {
            dim: contents.coordinates.get(dim) or Variable((dim,), np.arange(length))
            for variable in variables.values()
            for dim, length in zip(variable.dims, np.shape(variable.data), strict=True)
        }
        _fill_group(group, {**labels, **variables})


def _fill_group(group: Any, variables: Mapping[str, Variable]) -> None:
    import h5py

    for name, variable in variables.items():
        data = variable.data
        if isinstance(data, (list, str)):
            dataset = group.create_dataset(name, data=data, dtype=h5py.string_dtype())
        else:
            data = np.asarray(data)
            compressed = {"compression": "gzip", "shuffle": True} if data.size > 4096 else {}
            dataset = group.create_dataset(name, data=data, **compressed)
        dataset.attrs.update(variable.attrs)
        if variable.dims == (name,):
            dataset.make_scale(name)
    for name, variable in variables.items():
        for axis, dim in enumerate(variable.dims):
            if dim != name:
                group[name].dims[axis].attach_scale(group[dim])


@contextlib.contextmanager
def _damage_named(source: Path) -> Iterator[None]:
    # h5py raises errors of many kinds on files that are cut short, damaged or incomplete.
    try:
        yield
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ResultsError(
            f"{source}: damaged or incomplete ({reason}); run the sweep again"
        ) from error


@contextlib.contextmanager
def open_results(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a results file for reading, as an ``h5py.File``.

    Raises
    ------
    ResultsError
        If there is no such file, or it is not of this schema.
    """
    import h5py

    source = Path(path)
    if not source.is_file():
        raise ResultsError(f"{source}: no such file; give the path that the sweep printed")
    try:
        file = h5py.File(source, "r")
    except OSError as error:
        raise ResultsError(f"{source}: not a readable HDF5 file ({error})") from error
    with file, _damage_named(source):
        schema = file.attrs.get("schema")
        if schema != SCHEMA:
            raise ResultsError(
                f"{source}: schema is {schema!r}, not '{SCHEMA}'; give a sweep's results"
            )
        yield file


@dataclass(frozen=True)
class Results:
    """A results file in memory.

    Attributes
    ----------
    attrs : dict
        Of the file: schema, status, config, hashes.
    groups : dict of str to xarray.Dataset
        Every group with its labels; ``results.metrics`` is ``results.groups["metrics"]``, and
        ``results.groups[""]`` holds the labels alone.
    """

    attrs: dict[str, Any]
    groups: dict[str, xarray.Dataset]

    def __getattr__(self, name: str) -> xarray.Dataset:
        groups = self.__dict__.get("groups", {})
        if name in groups:
            return groups[name]
        raise AttributeError(f"no group '{name}'; there are {', '.join(groups)}")


def read(path: str | os.PathLike[str]) -> Results:
    """Read a results file as labelled arrays.

    Parameters
    ----------
    path : path of an HDF5 file that a sweep has written

    Returns
    -------
    Results
        ``read("sweep.h5").metrics.nll.sel(threshold=0.5)``, say.

    Raises
    ------
    ResultsError
        If there is no such file, or it is not of this schema.
    ImportError
        If xarray or h5netcdf is missing: ``pip install "bprune_hpc[results]"``.
    """
    import h5py

    try:
        import h5netcdf  # noqa: F401
        import xarray
    except ImportError as error:
        raise ImportError(
            f'labelled arrays need xarray and h5netcdf: pip install "bprune_hpc[results]" ({error})'
        ) from error
    with open_results(path) as file:
        attrs = dict(file.attrs)
        datasets: list[str] = []
        file.visititems(
            lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None
        )
    groups = {}
    for name in dict.fromkeys(name.rpartition("/")[0] for name in datasets):
        with xarray.open_dataset(path, engine="h5netcdf", group=name or None) as dataset:
            groups[name] = dataset.load()
    return Results(attrs, groups)
