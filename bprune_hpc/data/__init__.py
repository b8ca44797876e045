"""Data sets: files in many formats as arrays of examples and labels.

May import: ``tensorflow_import``, ``sources``, ``errors``. Begin with ``loading``; each format has
a module.
"""

from .fitting import LAYOUTS, Fitted, NetworkInput, fit
from .loading import (
    DATASETS,
    DataSet,
    check_labels,
    check_path,
    check_targets,
    describe,
    load,
    read,
)

__all__ = [
    "DATASETS", "LAYOUTS", "DataSet", "Fitted", "NetworkInput", "check_labels", "check_path",
    "check_targets", "describe", "fit", "load", "read",
]  # fmt: skip
