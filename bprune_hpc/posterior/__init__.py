"""The table of Gaussians: drawing from it, scoring and pruning it. Pure.

May import: ``errors``. Begin with ``mean_field``, then ``pruning`` and ``draws``.
"""
