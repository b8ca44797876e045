"""A bundle's ``predict.py`` against plain NumPy, in a process that has nothing but NumPy.

    python benchmarks/numpy_alone.py BUNDLE DENSE.npz N_REPEATS CLOCK

So a user runs them, and memory matters: the C library gives large arrays back to the system, and
takes them anew, until the process has freed one that is larger still. So each is measured before
that and after. Prints JSON: seconds by *fresh* or *warm*, *mean* or *sample*, and examples.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_DRAWS = 10
_LARGE_BYTES = 24 * 2**20
"""Above all arrays here, and below what the C library always gives back."""


def plain(x: NDArray[Any], kernels: list[NDArray[Any]], biases: list[NDArray[Any]]) -> NDArray[Any]:
    """Outputs under some weights, all of them, as a user would write it."""
    last = len(kernels) - 1
    for layer, kernel in enumerate(kernels):
        x = x @ kernel + biases[layer]
        if layer < last:
            x = np.maximum(x, 0)
    return x


def drawn(
    x: NDArray[Any],
    loc: list[NDArray[Any]],
    scale: list[NDArray[Any]],
    biases: list[NDArray[Any]],
    normal: Callable[[int, str, int, tuple[int, ...]], NDArray[Any]],
) -> None:
    """The same under each of some draws, in pairs."""
    for pair in range(N_DRAWS // 2):
        noises = [normal(0, f"layer{at}", pair, one.shape) for at, one in enumerate(scale)]
        deviation = [one * noise for one, noise in zip(scale, noises, strict=True)]
        for together in (np.add, np.subtract):
            plain(x, [together(*both) for both in zip(loc, deviation, strict=True)], biases)


def medians(
    functions: Mapping[str, Callable[[], Any]], n_repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Seconds of each, called in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(n_repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if repeat:  # the first one is not counted
                seconds[name].append(clock() - start)
    return {name: median(of_one) for name, of_one in seconds.items()}


def main(bundle: str, dense: str, n_repeats: int, clock: Callable[[], float]) -> None:
    """Measure, and print."""
    sys.path.insert(0, bundle)
    import predict  # type: ignore[import-not-found]

    net = predict.load(bundle)
    with np.load(dense) as arrays:
        whole, n_layers = arrays["x"], len(arrays.files) // 3
        loc, scale, biases = (
            [arrays[f"{what}{at}"] for at in range(n_layers)] for what in ("loc", "scale", "bias")
        )
    found: dict[str, Any] = {}
    for state in ("fresh", "warm"):
        found[state] = {"mean": {}, "sample": {}}
        for x in (whole[:1].copy(), whole):
            size = len(x)
            means = {
                "plain": lambda x=x: plain(x, loc, biases),
                "predict": lambda x=x: net.mean(x, len(x)),
            }
            draws = {
                "plain": lambda x=x: drawn(x, loc, scale, biases, predict.standard_normal),
                "predict": lambda x=x: net.sample(x, 0, N_DRAWS, batch_size=len(x)),
            }
            found[state]["mean"][str(size)] = medians(means, n_repeats, clock)
            found[state]["sample"][str(size)] = medians(draws, max(2, n_repeats // 10), clock)
        np.ones(_LARGE_BYTES, np.uint8)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    _, given, numbers, repeats, name = sys.argv
    main(str(Path(given)), numbers, int(repeats), getattr(time, name))
