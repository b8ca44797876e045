"""Pruning of mean-field Bayesian neural networks by signal-to-noise ratio, on many ranks.

Importing the package loads neither TensorFlow nor MPI.
"""

__version__ = "0.1.0"
