"""What noise of its own for each example gains over noise that all examples share.

    python -m benchmarks.draw_noise digits
    python -m benchmarks.draw_noise --model_dir DIR --data_path FILE --thresholds 0:2:21 --times

Every number comes from results files that ``bprune_hpc.sweep`` wrote, of sweeps that differ in
their seed alone: variances over the sweeps assume nothing. With ``--times``: processor time to a
given standard error, summed over thresholds, by TensorFlow Probability's layers in a
``tf.function``, by bayesian-torch's where it is installed, and by a sweep, each over that with
noise of each example's own. Prints Markdown; takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bprune_hpc
from bprune_hpc import data, sweep
from bprune_hpc.models.layers import keras
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.posterior.pruning import mask_at_threshold
from bprune_hpc.posterior.thresholds import parse_grid
from bprune_hpc.tensorflow_import import import_probability, import_tensorflow

from .common_draws import Repeats, repeat
from .peers import bayesian_torch_draws, set_posterior

METRICS = ("nll", "nll_rise", "predictive_entropy", "mutual_information")
KINDS = ("shared", "per_block", "per_example")

Floats = NDArray[np.float64]


def variances(found: Repeats) -> dict[str, Floats]:
    """Variance over sweeps of each metric at each threshold."""
    return {name: found.value[name].var(axis=0, ddof=1) for name in METRICS}


def variance_table(found: dict[str, Repeats]) -> str:
    """Markdown: standard deviations, and variances relative to shared noise."""
    of_kinds = {kind: variances(repeats) for kind, repeats in found.items()}
    kinds = list(of_kinds)
    rows = [
        "| threshold | metric | " + " | ".join(f"sd, {kind}" for kind in kinds)
        + " | " + " | ".join(f"variance, shared / {kind}" for kind in kinds[1:]) + " |",
        "|---" * (1 + 2 * len(kinds)) + "|",
    ]  # fmt: skip
    for t, threshold in enumerate(found[kinds[0]].threshold):
        for name in METRICS:
            variance = [of_kinds[kind][name][t] for kind in kinds]
            if variance[0] < 1e-18:  # a difference to itself
                continue
            cells = [f"{np.sqrt(one):.2g}" for one in variance]
            cells += [f"{variance[0] / one:.3g}" for one in variance[1:]]
            rows.append(f"| {threshold:g} | `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def entropy(p: Floats) -> Floats:
    """Of class probabilities along the last axis, nats."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(p > 0, p * np.log(p), 0).sum(axis=-1)


def peer(
    table: Posterior, biases: list[Any], x: NDArray[np.float32], kind: str
) -> Callable[[], Any]:
    """A stack of TFP's layers of a kind in a ``tf.function``: class probabilities of a draw."""
    tf = import_tensorflow()
    n_layers = len(table.loc)
    layers = [
        getattr(import_probability().layers, kind)(
            loc.shape[1], activation="relu" if index < n_layers - 1 else None
        )
        for index, loc in enumerate(table.loc.values())
    ]
    model = keras().Sequential([keras().Input(x.shape[1:]), *layers])
    with np.errstate(divide="ignore"):
        set_posterior(model.layers, table, biases)
    examples = tf.constant(x)
    draw = tf.function(lambda values: tf.nn.softmax(model(values)))
    return lambda: draw(examples).numpy()


def of_peer(draw: Callable[[], Any], label: Any, n_draws: int, n_repeats: int) -> Any:
    """Processor seconds a draw, and variances of NLL and predictive entropy of so many draws."""
    draw()
    found, rows, seconds = [], np.arange(len(label)), 0.0
    for _ in range(n_repeats):
        mean = np.zeros(())
        for _ in range(n_draws):
            start = time.process_time()
            probabilities = draw()
            seconds += time.process_time() - start
            mean = mean + probabilities.astype(float) / n_draws
        found.append((-np.log(mean[rows, label]).mean(), entropy(mean).mean()))
    return seconds / (n_repeats * n_draws), np.var(found, axis=0, ddof=1)


def of_sweep(flags: Sequence[str], n_draws: int, n_repeats: int) -> Any:
    """Processor seconds a draw at all thresholds, and the same variances of each threshold."""
    seconds = [cpu_seconds([*flags, f"--num_monte_carlo={n}"]) for n in (2, 2 + 2 * n_draws)]
    found = repeat([*flags, f"--num_monte_carlo={n_draws}"], range(n_repeats))
    variance = [found.value[name].var(axis=0, ddof=1) for name in ("nll", "predictive_entropy")]
    return (seconds[1] - seconds[0]) / (2 * n_draws), np.transpose(variance)


def cpu_seconds(flags: Sequence[str], n_times: int = 3) -> float:
    """Processor time of a sweep, the least of several."""
    found = []
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
        for _ in range(n_times):
            start = time.process_time()
            sweep.main([*flags, f"--output={Path(directory) / 'sweep.h5'}", "--overwrite"])
            found.append(time.process_time() - start)
    return min(found)


def times_table(
    model_dir: str, data_path: str, thresholds: Sequence[float], n_draws: int, n_repeats: int
) -> str:
    """Markdown: processor time to the same variance, summed over thresholds, over ours.

    A variance falls as 1 / draws, so that a draw's time, times the variance of so many draws, says
    what an error costs. Reading and writing are left out, and the peers' sums over draws.
    """
    net, test = bprune_hpc.load(model_dir), data.load("npz", data_path)
    x = np.asarray(test.x, np.float32).reshape(len(test.x), -1)
    biases = [value for value in net.fixed.values() if value.ndim == 1]
    costs: dict[str, Any] = {}
    for threshold in thresholds:
        table = mask_at_threshold(net.posterior, threshold).apply(net.posterior)
        least = {name: np.maximum(scale, 1e-6) for name, scale in table.scale.items()}
        pruned = Posterior(table.loc, least)
        draws = {
            f"TFP {kind}": peer(pruned, biases, x, kind)
            for kind in ("DenseFlipout", "DenseReparameterization")
        } | bayesian_torch_draws(pruned, x, biases)
        for name, draw in draws.items():
            seconds, variance = of_peer(draw, test.y, n_draws, n_repeats)
            costs[name] = costs.get(name, 0) + seconds * variance
    grid = ",".join(map(str, thresholds))
    flags = [f"--model_dir={model_dir}", f"--data_path={data_path}", f"--thresholds={grid}"]
    for kind in ("shared", "per_example"):
        seconds, variance = of_sweep([*flags, f"--draw_noise={kind}"], n_draws, n_repeats)
        costs[f"ours, {kind}"] = seconds * variance.mean(axis=0)  # of all thresholds together
    ours = costs["ours, per_example"]
    rows = ["| | NLL | predictive entropy |", "|---|---|---|"]
    for name, cost in costs.items():
        rows.append(f"| {name} | {cost[0] / ours[0]:.3g} | {cost[1] / ours[1]:.3g} |")
    return "\n".join(rows)


def all_digits(directory: str) -> str:
    """A file of all of the embedded digits, those of the training too."""
    parts = [data.load("digits", split=split) for split in ("train", "test")]
    path = str(Path(directory) / "digits.npz")
    np.savez(path, **{name: np.concatenate([getattr(part, name) for part in parts])
                      for name in ("x", "y")})  # fmt: skip
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=["digits"], help="the network of the package")
    parser.add_argument("--model_dir", default="embedded:digits_fc", help="(%(default)s)")
    parser.add_argument("--data_path", help="test set; without, all 1,797 digits")
    parser.add_argument("--thresholds", default="0,1", help="as of a sweep (%(default)s)")
    parser.add_argument("--num_monte_carlo", type=int, default=100, help="draws (%(default)s)")
    parser.add_argument("--sweeps", type=int, default=40, help="of each kind (%(default)s)")
    parser.add_argument("--times", action="store_true", help="time to an error, by peers and here")
    asked = parser.parse_args(argv)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as directory:
        data_path = asked.data_path or all_digits(directory)
        if asked.times:
            grid = parse_grid(asked.thresholds, "threshold")
            said = times_table(
                asked.model_dir, data_path, grid, asked.num_monte_carlo, asked.sweeps
            )
        else:
            flags = [f"--model_dir={asked.model_dir}", f"--data_path={data_path}",
                     f"--thresholds={asked.thresholds}",
                     f"--num_monte_carlo={asked.num_monte_carlo}"]  # fmt: skip
            said = variance_table(
                {kind: repeat([*flags, f"--draw_noise={kind}"], range(asked.sweeps))
                 for kind in KINDS}
            )  # fmt: skip
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
