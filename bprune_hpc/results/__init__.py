"""The results file: its schema, writing it whole, going on from it, reading it.

May import: ``runner`` and all below it; reading (``file``) needs none of that. Begin with ``file``
to read, with ``output`` for the file of a running sweep.
"""

from .file import SCHEMA, Results, open_results, read

__all__ = ["SCHEMA", "Results", "open_results", "read"]
