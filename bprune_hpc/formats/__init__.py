"""A pruned network in files that others open: one module a format.

May import: ``runner`` and all below it. Begin with ``interface``; ``writing`` puts formats into a
directory.
"""
