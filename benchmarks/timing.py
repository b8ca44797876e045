"""How things are timed here: in turns, so that a slow moment of the machine meets all of them.

What belongs here: repeats, medians, and the rate of a large product, which the others are set
against. What does not: what is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from bprune_hpc import blas
from bprune_hpc.tensorflow_import import import_tensorflow, limit_threads


@dataclass(frozen=True)
class Settings:
    """How the benchmarks are run.

    Attributes
    ----------
    is_quick : bool
        Whether everything is made small: shows that it runs, and no more.
    with_peers : bool
        Whether libraries that are not needed otherwise are measured too.
    clock : callable
        Seconds: of the wall, or of this process's work where the machine has other things to do.
        Of what runs in processes of its own it is always the wall's.
    """

    is_quick: bool = False
    with_peers: bool = False
    clock: Callable[[], float] = time.perf_counter

    def choose(self, quick: Any, whole: Any) -> Any:
        """The one size or the other."""
        return quick if self.is_quick else whole


def use_one_thread() -> None:
    """One thread for NumPy's products and for TensorFlow."""
    blas.limit_threads(1)
    limit_threads(1, 1)


def in_turns(
    functions: Mapping[str, Callable[[], Any]],
    n_repeats: int,
    clock: Callable[[], float],
    *,
    warm_up: bool = True,
) -> dict[str, float]:
    """Median seconds of each function, called A B C A B C ...

    Parameters
    ----------
    warm_up : bool
        Whether each is called once before, and not counted.
    """
    for function in functions.values() if warm_up else ():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(n_repeats):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: median(of_one) for name, of_one in seconds.items()}


class Peak:
    """The best rate of a large float32 product with one thread, measured beside other things.

    NumPy's product and TensorFlow's are both tried; the faster one is the peak.

    Parameters
    ----------
    clock : callable
    size : int
        Rows and columns of the matrices.
    """

    def __init__(self, clock: Callable[[], float], size: int = 2048) -> None:
        tensorflow = import_tensorflow()
        left, right = np.random.default_rng(0).random((2, size, size), dtype=np.float32)
        out = np.empty_like(left)
        tensors = tensorflow.constant(left), tensorflow.constant(right)
        self._products: dict[str, Callable[[], Any]] = {
            "numpy": lambda: np.matmul(left, right, out=out),
            # Waits for the result; the copy is small beside the product.
            "tensorflow": lambda: tensorflow.matmul(*tensors).numpy(),
        }
        self._clock, self._operations = clock, 2 * size**3
        for product in self._products.values():
            product()
        self._seconds: dict[str, list[float]] = {name: [] for name in self._products}

    def sample(self) -> None:
        """Measure once more."""
        with blas.limit_threads(1):
            for name, product in self._products.items():
                start = self._clock()
                product()
                self._seconds[name].append(self._clock() - start)

    def forget(self) -> None:
        """Begin anew, for another part."""
        for seconds in self._seconds.values():
            seconds.clear()

    @property
    def rates(self) -> dict[str, float]:
        """Median rate of each, in operations a second."""
        return {name: self._operations / median(one) for name, one in self._seconds.items()}

    @property
    def rate(self) -> float:
        """That of the faster one."""
        return max(self.rates.values())
