"""What common draws and antithetic pairs gain, measured by sweeps that differ in their seed alone.

    python benchmarks/common_draws.py
    python -m benchmarks.common_draws DIR --data_path FILE --thresholds 0,0.1,0.5,1

Every number comes from results files that ``bprune_hpc.sweep`` wrote: standard errors are standard
deviations over the sweeps, which assume nothing, and beside them the files' own (the jackknife's).
Draws that are independent from threshold to threshold are not drawn: the variance of a difference
is then the sum of both thresholds' variances, whose parts a sweep with common draws has measured.
Prints Markdown; takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bprune_hpc import results, sweep

Floats = NDArray[np.float64]

METRICS = (
    "nll",
    "nll_rise",
    "brier",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "probability_variance",
    "accuracy_single_draw",
    "ece",
    "aurc",
    "auroc_errors_entropy",
)

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Repeats:
    """Sweeps that differ in their seed alone, one along the first axis of every array.

    Attributes
    ----------
    threshold, pruned_fraction : float64 array, shape (n_thresholds,)
    value, se : dict of metric to float64 array, shape (n_sweeps, n_thresholds)
        Estimates and their Monte Carlo errors, as in the files.
    unit_nll : float64 array, shape (n_sweeps, n_thresholds, n_replicates)
        NLL of the data set under each independent replicate of draws: a pair (mean of its two
        draws).
    """

    threshold: Floats
    pruned_fraction: Floats
    value: dict[str, Floats]
    se: dict[str, Floats]
    unit_nll: Floats


def repeat(arguments: Sequence[str], seeds: Sequence[int]) -> Repeats:
    """Sweep once with each seed.

    Parameters
    ----------
    arguments : sequence of str
        Of ``python -m bprune_hpc.sweep``, without seed and output.
    seeds : sequence of int

    Raises
    ------
    SystemExit
        If a sweep fails; it has said why.
    """
    found = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sweep.h5"
        for seed in seeds:
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                output = [f"--output={path}", "--overwrite"]
                status = sweep.main([*arguments, f"--seed={seed}", *output])
            if status:
                raise SystemExit(said.getvalue())
            found.append(results.read(path))
    first = found[0]
    pair = first.groups[""].pair.values
    of_replicate = (pair == np.unique(pair)[:, None]) / np.bincount(pair)[:, None]
    return Repeats(
        first.metrics.threshold.values,
        first.sparsity.pruned_fraction.values,
        {name: np.stack([one.metrics[name].values for one in found]) for name in METRICS},
        {name: np.stack([one.metrics[f"{name}_se"].values for one in found]) for name in METRICS},
        np.stack([one.draws.nll.values @ of_replicate.T for one in found]),
    )


def with_error(statistic: Callable[..., Floats], *samples: Floats) -> tuple[Floats, Floats]:
    """A statistic of sweeps, and its standard error by leaving out each sweep of each sample.

    Parameters
    ----------
    statistic : callable
        Takes as many arrays as there are samples.
    samples : float64 array, shape (n_sweeps, ...)
        Independent of one another.

    Returns
    -------
    value, standard_error : float64 array
    """
    variance = np.zeros(())
    for at, sample in enumerate(samples):
        n = len(sample)
        without = [
            statistic(*samples[:at], np.delete(sample, row, axis=0), *samples[at + 1 :])
            for row in range(n)
        ]
        with np.errstate(invalid="ignore"):  # infinite where nothing varies
            variance = variance + (n - 1) * np.var(without, axis=0)
    return statistic(*samples), np.sqrt(variance)


def independent_over_common(nll: Floats) -> Floats:
    """Standard error of the NLL's rise with independent draws over that with common ones.

    Parameters
    ----------
    nll : float64 array, shape (n_sweeps, n_thresholds), of sweeps with common draws

    Returns
    -------
    float64 array, shape (n_thresholds,); inf at the first threshold, which rises by 0
    """
    variance = nll.var(axis=0, ddof=1)
    of_rise = (nll - nll[:, :1]).var(axis=0, ddof=1)
    with np.errstate(divide="ignore"):
        return np.sqrt((variance + variance[0]) / of_rise)


def independent_over_common_by_jackknife(errors: Floats) -> Floats:
    """The same from the files' standard errors.

    Parameters
    ----------
    errors : float64 array, shape (n_sweeps, n_thresholds, 2)
        ``nll_se`` and ``nll_rise_se``.
    """
    square = (errors**2).mean(axis=0)
    with np.errstate(divide="ignore"):
        return np.sqrt((square[:, 0] + square[0, 0]) / square[:, 1])


def correlation(unit_nll: Floats) -> Floats:
    """Correlation of the replicates' NLL at each threshold with that at the first.

    Parameters
    ----------
    unit_nll : float64 array, shape (n_sweeps, n_thresholds, n_replicates)
    """
    away = unit_nll - unit_nll.mean(axis=(0, 2), keepdims=True)
    product = (away * away[:, :1]).sum(axis=(0, 2))
    square = (away**2).sum(axis=(0, 2))
    return product / np.sqrt(square * square[0])


def none_over_pairs(of_none: Floats, of_pairs: Floats) -> Floats:
    """Standard error with independent draws over that with as many in antithetic pairs.

    NaN where nothing but rounding varies.
    """
    none, pairs = (values.std(axis=0, ddof=1) for values in (of_none, of_pairs))
    varies = np.minimum(none, pairs) > _ROUNDING
    return np.where(varies, none, np.nan) / np.where(varies, pairs, 1.0)


def _estimates_correlation(nll: Floats) -> Floats:
    return correlation(nll[:, :, None])


def _spread(nll: Floats) -> Floats:
    return nll.std(axis=0, ddof=1) / nll[:, 0].std(ddof=1)


def common_draws_table(pairs: Repeats) -> str:
    """Markdown: what common draws gain, by threshold."""
    nll = pairs.value["nll"]
    errors = np.stack([pairs.se["nll"], pairs.se["nll_rise"]], axis=2)
    columns = [
        with_error(correlation, pairs.unit_nll),
        with_error(_estimates_correlation, nll),
        with_error(_spread, nll),
        with_error(independent_over_common, nll),
        with_error(independent_over_common_by_jackknife, errors),
    ]
    rows = [
        "| threshold | pruned | correlation of pairs | correlation of estimates | σ / σ unpruned "
        "| independent / common | by the jackknife |",
        "|---|---|---|---|---|---|---|",
    ]
    for t in range(1, len(pairs.threshold)):
        cells = [_value(value[t], error[t]) for value, error in columns]
        start = f"| {pairs.threshold[t]:g} | {100 * pairs.pruned_fraction[t]:.1f} % | "
        rows.append(start + " | ".join(cells) + " |")
    return "\n".join(rows)


def pairs_table(pairs: Repeats, none: Repeats) -> str:
    """Markdown: what antithetic pairs gain, by metric and threshold."""
    heads = " | ".join(f"{value:g}" for value in pairs.threshold)
    rows = [f"| metric | {heads} |", "|---" * (len(pairs.threshold) + 1) + "|"]
    for name in METRICS:
        ratio, error = with_error(none_over_pairs, none.value[name], pairs.value[name])
        cells = [_value(*both) for both in zip(ratio, error, strict=True)]
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _value(value: float, error: float) -> str:
    if not (np.isfinite(value) and error < value):  # nothing varies, or next to nothing
        return "–"
    digits = 3 if error < 0.02 else 2 if error < 0.2 else 1
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model_dir", nargs="?", default="embedded:digits_fc", help="(%(default)s)")
    parser.add_argument("--draw_noise", default="shared", help="of the draws (%(default)s)")
    parser.add_argument("--data_path", help="test set; without, the embedded digits")
    parser.add_argument("--thresholds", default="0,0.01,0.02,0.1,0.25,0.5,1,2,3")
    parser.add_argument("--num_monte_carlo", type=int, default=100, help="draws (%(default)s)")
    parser.add_argument("--sweeps", type=int, default=100, help="of each pairing (%(default)s)")
    asked = parser.parse_args(argv)
    arguments = [
        f"--model_dir={asked.model_dir}",
        f"--thresholds={asked.thresholds}",
        f"--draw_noise={asked.draw_noise}",
        f"--num_monte_carlo={asked.num_monte_carlo}",
        *([f"--data_path={asked.data_path}"] if asked.data_path else []),
    ]
    logging.disable(logging.INFO)
    pairs = repeat(arguments, range(asked.sweeps))
    # Other seeds: with the same, single draws would be half of the pairs' noise.
    seeds = range(asked.sweeps, 2 * asked.sweeps)
    none = repeat([*arguments, "--pairing=none"], seeds)
    sys.stdout.write(f"{common_draws_table(pairs)}\n\n{pairs_table(pairs, none)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
