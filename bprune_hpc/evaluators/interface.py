"""Evaluators: from a table of Gaussians and noise to the outputs of the network, batch by batch.

The interface that the loop over draws (``runner.evaluation``) knows. What has it:
``evaluators.graph``, for any architecture, and forms that are faster where the shape allows
(``evaluators.chain``). Which one runs is decided in ``evaluators.selection``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..posterior.draws import Draw, ExampleNormals
from ..posterior.mean_field import Posterior

Weights = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Noise:
    """The draws that share standard normals.

    Attributes
    ----------
    replicate : int
        That they belong to.
    draws : tuple of Draw
        Each with the sign that it gives the noise; 0 for the posterior mean.
    values : mapping of str to float32 array, or None
        For every mean-field tensor; None for the posterior mean, and where examples have noise of
        their own.
    of_examples : ExampleNormals or None
        Those of examples, where they have their own.
    """

    replicate: int
    draws: tuple[Draw, ...]
    values: Weights | None
    of_examples: ExampleNormals | None = None

    @property
    def is_mean(self) -> bool:
        """Whether it stands for the posterior mean, without any noise."""
        return self.values is None and self.of_examples is None


class Sampled(Protocol):
    """A pruned network under some draws of its weights."""

    def outputs(
        self, x: NDArray[Any], noise_batches: Sequence[slice], first_example: int = 0
    ) -> Iterator[NDArray[Any]]:
        """Outputs of a batch for each batch of noises, one draw after the other.

        Parameters
        ----------
        first_example : int
            Position of the batch in its data set, where examples have noise of their own.

        Yields
        ------
        float32 or float64 array, shape (n_draws, n_outputs, n_examples)
        """


class Pruned(Protocol):
    """A network some of whose weights may be exactly zero.

    Attributes
    ----------
    cost : int
        Work of a draw for an example, in about the time of a float32 operation of a matrix
        product; at least 1.
    """

    @property
    def cost(self) -> int:
        """See the class."""

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        """Noises best evaluated together, for a size of batch; see :func:`noise_batches_of`."""

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        """Weights of the draws; the bits of each are the same whichever others there are."""


class Evaluator(Protocol):
    """A way to run a network.

    Attributes
    ----------
    n_threads : int
        That NumPy's matrix products are to have while it runs. The caller sees to it, as they are
        a setting of the process (``blas``).
    """

    @property
    def n_threads(self) -> int:
        """See the class."""

    def prune(self, table: Posterior) -> Pruned:
        """The network with another table of Gaussians, which may have exact zeros."""


def noise_batches_of(noises: Sequence[Noise], most: int, group: int = 1) -> list[slice]:
    """Divide noises evenly into batches of so many at most; the posterior mean is an extra one.

    Parameters
    ----------
    group : int
        A batch is made of whole groups of up to so many noises, or is one of them. Groups are
        those that ``noise_batches_of(noises, group)`` gives.
    """
    if not noises:
        return []
    with_noise = [at for at, noise in enumerate(noises) if not noise.is_mean]
    groups = _evenly(len(with_noise), group)
    starts = [groups[at] for at in _evenly(len(groups) - 1, max(1, most // group))[:-1]]
    bounds = [0, *(with_noise[start] for start in starts[1:]), len(noises)]
    return [slice(*of_batch) for of_batch in pairwise(bounds)]


def _evenly(n: int, most: int) -> list[int]:
    """Where parts of ``n`` begin, sizes differing by 1 at most; the last is ``n``."""
    n_parts = max(1, -(-n // most))
    return [n * part // n_parts for part in range(n_parts + 1)]
