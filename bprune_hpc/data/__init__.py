"""Data sets: files in many formats as arrays of examples and labels.

May import: ``tensorflow_import``, ``errors``. Begin with ``loading``; each format has a module.
"""

from .loading import DATASETS, DataSet, check_labels, check_targets, describe, fit_input, load

__all__ = ["DATASETS", "DataSet", "check_labels", "check_targets", "describe", "fit_input", "load"]
