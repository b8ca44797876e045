"""The library for notebooks: load a network, look at its posterior, prune it, predict with it.

May import: ``runner`` and all below it. Begin with ``network``.
"""

from ..runner.prediction import NormalPredictive, Predictive
from .network import BayesianNetwork, load

__all__ = ["BayesianNetwork", "NormalPredictive", "Predictive", "load"]
