"""The results file: HDF5 in the schema ``bprune-hpc/1``, written whole and read as labelled arrays.

How groups and dimensions are laid out belongs here. How the numbers come about does not, nor what
they are called (``results.contents``), nor how a file gets to its place (``files.atomic_write``).
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .._typing import AnyArray
from ..errors import ResultsError, damage
from ..files.atomic_write import Signature, put
from ..files.checksum import check, header

if TYPE_CHECKING:
    from .tree import Results

SCHEMA = "bprune-hpc/1"
STATE = "state"
"""Group of what a resume needs."""


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
    state : mapping of str to array
        Datasets under ``/state``, without dimensions.
    state_attrs : mapping
    """

    attrs: Mapping[str, Any]
    coordinates: Mapping[str, Variable]
    groups: Mapping[str, Mapping[str, Variable]]
    group_attrs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    state: Mapping[str, AnyArray] = field(default_factory=dict)
    state_attrs: Mapping[str, Any] = field(default_factory=dict)


def write(
    path: str | os.PathLike[str],
    contents: Contents,
    keep: Signature | None = None,
    just_before: Callable[[], None] = lambda: None,
) -> Signature:
    """Write a results file whole: what stood at the path stays until the new file is complete.

    Parameters
    ----------
    keep, just_before
        See :func:`bprune_hpc.files.atomic_write.put`.

    Raises
    ------
    WriteError
        If the file system refuses.
    """
    image = _image(contents)
    return put(path, [header(image, SCHEMA), image], keep, just_before)


def be_ready() -> None:
    """Load and try the library that writes: before the work, not on top of what the work holds."""
    import h5py

    numbers = Variable(("number",), np.zeros(5000))  # as many as are compressed
    with h5py.File(io.BytesIO(), "w") as file:
        _fill(file, Contents({}, {}, {"group": {"numbers": numbers}}))


def _image(contents: Contents) -> memoryview:
    """Bytes of the HDF5 file, made in memory.

    A write that fails under the HDF5 library (a full disk) leaves it in a state in which the
    process crashes at its end; a write of plain bytes does not.
    """
    import h5py

    stream = io.BytesIO()  # HDF5's own files in memory are copied on their way out
    with h5py.File(stream, "w") as file:
        _fill(file, contents)
    return stream.getbuffer()


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
    if contents.state_attrs:
        group = file.create_group(STATE)
        group.attrs.update(contents.state_attrs)
        for name, array in contents.state.items():  # hardly compressible, and written often
            group.create_dataset(name, data=array)


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
    with damage(
        lambda _, why: ResultsError(f"{source}: damaged or incomplete ({why}); run the sweep again")
    ):
        yield


@contextlib.contextmanager
def _checked(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """An open results file that fits its digest.

    It is opened once and HDF5 reads through the handle: a file that takes its place meanwhile
    does not matter, and HDF5 has no file to lock.
    """
    source = Path(path)
    if not source.is_file():
        raise ResultsError(f"{source}: no such file; give the path that the sweep printed")
    with contextlib.ExitStack() as stack:
        try:
            handle = stack.enter_context(source.open("rb"))
            check(handle, source, SCHEMA)
        except OSError as error:
            raise ResultsError(f"{source}: cannot be read ({error.strerror})") from error
        stack.enter_context(_damage_named(source))
        yield handle


@contextlib.contextmanager
def open_results(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a results file for reading, as an ``h5py.File``.

    Raises
    ------
    ResultsError
        If there is no such file, or it is damaged (DamagedError), or not of this schema.
    """
    import h5py

    with _checked(path) as handle, h5py.File(handle, "r") as file:
        yield file


def read(path: str | os.PathLike[str]) -> Results:
    """Read a results file as a tree of labelled arrays.

    Parameters
    ----------
    path : path of an HDF5 file that a sweep has written

    Returns
    -------
    Results
        An ``xarray.DataTree``: ``read("sweep.h5").metrics.nll.sel(threshold=0.5)``, say.

    Raises
    ------
    ResultsError
        If there is no such file, or it is not of this schema.
    ImportError
        If xarray or h5netcdf is missing: ``pip install "bprune_hpc[results]"``.
    """
    import h5py

    try:
        import h5netcdf
        import xarray

        from .tree import Results
    except ImportError as error:
        raise ImportError(
            f'labelled arrays need xarray and h5netcdf: pip install "bprune_hpc[results]" ({error})'
        ) from error
    groups = {}
    with _checked(path) as handle:
        with h5py.File(handle, "r") as file:
            attrs = dict(file.attrs)
            names: list[str] = []
            file.visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        with h5netcdf.File(handle, "r", decode_vlen_strings=True) as file:
            for name in dict.fromkeys(name.rpartition("/")[0] for name in names):
                if name.split("/")[0] != STATE:
                    store = xarray.backends.H5NetCDFStore(file, group=name or None)
                    groups[name] = xarray.open_dataset(store).load()
    if "" in groups:
        # Nodes inherit labels, and a node of that name would be in their way: a tensor can be
        # called ``layer/kernel``. Groups have the labels of their own arrays all the same.
        nodes = {part for name in groups for part in name.split("/")}
        groups[""] = groups[""].drop_vars(nodes & set(groups[""].coords))
    tree = Results.from_dict(groups, name=Path(path).name)
    tree.attrs = attrs
    return tree
