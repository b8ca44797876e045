"""What the library's predictions are: plain arrays with names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictive:
    """What the posterior says of each example, averaged over draws.

    Attributes
    ----------
    mean_probability : float32 array, shape (n_examples, n_classes)
        The predictive distribution: class probabilities averaged over draws.
    predictive_entropy : float64 array, shape (n_examples,)
        Entropy of ``mean_probability``, nats: the whole uncertainty.
    expected_entropy : float64 array, shape (n_examples,)
        Mean entropy of single draws' predictions, nats: what more training data would not mend.
    mutual_information : float64 array, shape (n_examples,)
        The difference of the two, nats: disagreement of the draws. With few draws it is too small
        by a term of the order of 1 / ``n_draws``.
    n_draws, seed : int
    pairing : {"antithetic", "none"}
    """

    mean_probability: NDArray[np.float32]
    predictive_entropy: NDArray[np.float64]
    expected_entropy: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    n_draws: int
    seed: int
    pairing: str

    @property
    def predicted_class(self) -> NDArray[np.int64]:
        """Most probable class of each example (the first of equals), int64, (n_examples,)."""
        return self.mean_probability.argmax(axis=1)
