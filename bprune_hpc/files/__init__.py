"""Files that are whole at any moment: written beside and renamed, locked, with a checksum.

May import: ``errors``. Begin with ``atomic_write``.
"""
