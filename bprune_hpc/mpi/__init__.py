"""Ranks: collectives that name who is missing, sums as a tree; the only importer of mpi4py.

May import: ``sources``, ``errors``. Begin with ``comm``.
"""
