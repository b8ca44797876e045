"""A few outputs of the unpruned network, to be looked at before a sweep begins.

What they tell does not belong here (``runner.task_selection``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluators.interface import Evaluator, Noise
from ..posterior.draws import MEAN, Draw, standard_normal, units_of
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
    for unit, draws in enumerate(units_of(_N_DRAWS, "antithetic")):
        values = {
            name: standard_normal(0, name, unit, scale.shape)
            for name, scale in posterior.scale.items()
        }
        noises.append(Noise(unit, draws, values))
    pruned = evaluator.prune(posterior)
    stacks = pruned.stacks(noises, size)
    outputs = pruned.sample(noises).outputs(some, stacks)
    return np.concatenate([of_stack.copy() for of_stack in outputs])
