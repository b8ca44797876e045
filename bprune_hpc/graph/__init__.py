"""A TensorFlow graph becomes a function of examples and weights, and a posterior.

May import: ``posterior``, ``tensorflow_import``, ``errors``. Begin with ``lifting``, which tells
the steps; ``lifted`` is what comes out.
"""
