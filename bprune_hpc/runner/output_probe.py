"""A few outputs of the unpruned network, to be looked at before a sweep begins.

What they tell does not belong here (``runner.task_selection``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluators.interface import Evaluator, Noise
from ..posterior.draws import MEAN, Draw, replicates_of, standard_normal
from ..posterior.mean_field import Posterior

_MOST_EXAMPLES = 32
_N_DRAWS = 4


@np.errstate(over="ignore", invalid="ignore")
def some_outputs(
    evaluator: Evaluator, posterior: Posterior, x: NDArray[Any], batch_size: int | None = None
) -> NDArray[np.float32]:
    """Outputs at the posterior mean and for two antithetic pairs, of examples from all of a set.

    Parameters
    ----------
    x : array, shape (n_examples, ...)
    batch_size : int, optional
        The only one that the network takes, if it takes but one; examples are repeated to fill it.

    Returns
    -------
    float32 array, shape (5, n_outputs, at most 32, or batch_size)
    """
    size = batch_size or min(_MOST_EXAMPLES, len(x))
    some = x[np.linspace(0, len(x) - 1, size).astype(int)]
    noises = [Noise(MEAN, (Draw(MEAN, 0, MEAN),), None)]
    for replicate, draws in enumerate(replicates_of(_N_DRAWS, "antithetic")):
        values = {
            name: standard_normal(0, name, replicate, scale.shape)
            for name, scale in posterior.scale.items()
        }
        noises.append(Noise(replicate, draws, values))
    pruned = evaluator.prune(posterior)
    noise_batches = pruned.noise_batches(noises, size)
    outputs = pruned.sample(noises).outputs(some, noise_batches)
    return np.concatenate([of_batch.copy() for of_batch in outputs])
