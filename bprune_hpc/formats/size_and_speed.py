"""What pruning has saved in each format: bytes, weights, multiplications, time; all measured.

*Before* is the unpruned network in the same format and its own runtime, written for the comparison
and run in turn with the pruned one. What belongs here: measuring, and the table. What does not: the
model card that holds the numbers (``formats.card``).
"""

from __future__ import annotations

import gzip
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..graph.layer_graph import Convolution, Dense, Scale
from .interface import Format
from .packing import PackedNetwork, pack
from .pruned_network import PrunedNetwork
from .reference import Reference

BATCHES = (1, 1000)
_SECONDS = 1.0
_MOST_SECONDS = 10.0
"""A run that would take longer is not measured."""
_MOST_RUNS = 50

Run = Callable[[NDArray[Any]], Any]


@runtime_checkable
class Runnable(Protocol):
    """A format whose mean network can be run, and so timed."""

    def runner(self, directory: Path) -> Run:
        """What gives the outputs of examples at the posterior mean."""


def measure(
    network: PrunedNetwork, formats: Sequence[Format], directory: Path, reference: Reference
) -> dict[str, Any]:
    """Sizes and times before and after, as JSON can hold them.

    Parameters
    ----------
    formats : sequence of Format
        Those that were written.
    directory : path
        Where they are.

    Returns
    -------
    dict
        ``weights`` with a posterior, ``posterior_bytes`` (means and deviations in float32, dense)
        and ``multiplications`` of an example (``dense``: of all that is left of kernels, ``left``:
        of the weights that are not zero); of each format ``bytes``, ``gzip_bytes`` and, where it
        can be run, ``seconds`` of a batch on one thread, medians; None for one that takes too long.
    """
    unpruned = without_pruning(network)
    n_weights = unpruned.posterior.n_weights
    found: dict[str, Any] = {
        "weights": {"before": n_weights, "after": network.mask.n_active},
        "posterior_bytes": 8 * n_weights,
    }
    if network.layers is not None:
        before, after = (pack(one, only_mean=True) for one in (unpruned, network))
        found["multiplications"] = {
            "before": multiplications(before)[0],
            "dense": multiplications(after)[0],
            "left": multiplications(after)[1],
        }
    found["formats"] = {}
    for one in formats:
        with tempfile.TemporaryDirectory() as name:
            beside = Path(name)
            before_is_possible = isinstance(one, Runnable) and one.why_not(unpruned) is None
            if before_is_possible:
                one.write(unpruned, beside)
            places = {"before": beside} if before_is_possible else {}
            places["after"] = directory
            measured: dict[str, Any] = {
                "bytes": {at: _bytes(one, place) for at, place in places.items()},
                "gzip_bytes": {
                    at: _bytes(one, place, gzip.compress) for at, place in places.items()
                },
            }
            if isinstance(one, Runnable):
                runs = {at: one.runner(place) for at, place in places.items()}
                with threadpool_limits(1):
                    measured["seconds"] = {
                        str(size): latencies(runs, _repeated(reference.x, size)) for size in BATCHES
                    }
            found["formats"][one.name] = measured
    return found


def without_pruning(network: PrunedNetwork) -> PrunedNetwork:
    """The same network with all of its weights."""
    everything = {
        name: np.broadcast_to(np.True_, loc.shape)
        for name, loc in network.unpruned.posterior.loc.items()
    }
    return replace(network, mask=replace(network.mask, kept=everything))


def multiplications(packed: PackedNetwork) -> tuple[int, int]:
    """Multiplications of an example: of whole kernels, and of their weights that are not zero."""
    whole = left = 0
    for node, shape in zip(packed.layers.nodes, packed.shapes, strict=True):
        one = node.operation
        if isinstance(one, Dense | Convolution):
            places = math.prod(one.size) if isinstance(one, Convolution) else 1
            tensor = packed.tensors[one.kernel]
            whole += places * math.prod(tensor.shape)
            left += places * tensor.n_left
        elif isinstance(one, Scale):
            whole += math.prod(shape)
            left += math.prod(shape)
    return whole, left


def latencies(runs: Mapping[str, Run], x: NDArray[Any]) -> dict[str, float | None]:
    """Median seconds of each, run in turn after a first run that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        n_few = max(1, len(x) // 50)
        _timed(run, x[:n_few])
        if _timed(run, x[:n_few]) * len(x) / n_few > _MOST_SECONDS:
            return dict.fromkeys(runs)
        _timed(run, x)
    start = time.perf_counter()
    for _ in range(_MOST_RUNS):
        for name, run in runs.items():
            seconds[name].append(_timed(run, x))
        if time.perf_counter() - start > _SECONDS:
            break
    return {name: float(np.median(times)) for name, times in seconds.items()}


def _timed(run: Run, x: NDArray[Any]) -> float:
    start = time.perf_counter()
    run(x)
    return time.perf_counter() - start


def _repeated(x: NDArray[Any], n_examples: int) -> NDArray[Any]:
    return np.concatenate([x] * -(-n_examples // len(x)))[:n_examples]


def _bytes(one: Format, directory: Path, packed: Callable[[bytes], bytes] = lambda raw: raw) -> int:
    return sum(len(packed(file.read_bytes())) for file in _files(one, directory))


def _files(one: Format, directory: Path) -> Iterator[Path]:
    place = directory / one.place
    if place.is_dir():
        yield from (file for file in sorted(place.rglob("*")) if file.is_file())
    else:
        yield place


def as_text(found: Mapping[str, Any]) -> str:
    """The table that a user reads."""
    rows = [("", "before", "after", "")]

    def row(what: str, numbers: Mapping[str, Any], after: str, shown: Callable[[Any], str]) -> None:
        before, now = numbers.get("before"), numbers[after]
        if before is None and now is None:
            return
        ratio = ""
        if before and now:
            less, more = f"{before / now:.3g}", f"{now / before:.3g}"
            is_same = "1" in (less, more)
            ratio = (
                "the same" if is_same else f"{less} x less" if before > now else f"{more} x more"
            )
        rows.append((what, "" if before is None else shown(before), shown(now), ratio))

    row("weights with a posterior", found["weights"], "after", lambda n: f"{n:,}")
    if "multiplications" in found:
        counts = found["multiplications"]
        row("multiplications an example", counts, "dense", lambda n: f"{n:,}")
        row("  by weights that are not zero", counts, "left", lambda n: f"{n:,}")
    for name, of_format in found["formats"].items():
        row(f"{name}: bytes", of_format["bytes"], "after", lambda n: f"{n:,}")
        row("  with gzip", of_format["gzip_bytes"], "after", lambda n: f"{n:,}")
        for size, seconds in of_format.get("seconds", {}).items():
            row(f"  batch of {size}", seconds, "after", _in_words)
    widths = [max(len(cells[column]) for cells in rows) for column in range(4)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 3) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows
    )


def _in_words(seconds: float) -> str:
    return f"{1e3 * seconds:,.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:,.3g} us"
