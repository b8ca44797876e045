"""How often intervals and errors hold what very many draws and test examples give.

    python benchmarks/error_coverage.py              # all tables of docs/standard_errors.md
    python benchmarks/error_coverage.py simulated    # those of made-up networks, in NumPy alone
    python -m benchmarks.error_coverage network DIR --data_path FILE --thresholds 0,0.5

``simulated``: draws and test sets are taken anew, of three classifiers and three regressions
(``simulation``); the shares in which ``NAME_low`` to ``NAME_high``, and bands over a whole sweep,
hold what the whole population and many draws give; Monte Carlo errors of steps over the deviation
of the number; losses that are rare and large, which no interval can know of; and how often an
error holds that ended the draws by being small. ``network``: value ± t · ``NAME_se``
of sweeps that differ in their seed alone, with Student's t of 19 degrees of freedom; the truth is
one sweep of many draws with another seed. ``off`` is the mean distance from it in units of the
error. Prints Markdown.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from bprune_hpc.metrics.definitions import ALL, CLASSIFICATION
from bprune_hpc.metrics.estimates import Estimate, Metric
from bprune_hpc.metrics.half_samples import half_sample_error, half_samples
from bprune_hpc.metrics.jackknife import jackknife
from bprune_hpc.metrics.stopping import FIRST_TEST

if __package__:
    from .common_draws import METRICS, repeat
    from .simulation import CLASSES, NUMBERS, Classifier, Regressor
else:
    from common_draws import METRICS, repeat  # type: ignore[no-redef]
    from simulation import CLASSES, NUMBERS, Classifier, Regressor  # type: ignore[no-redef]

LEAST = 0.93
LEAST_OF = {100: {"ece": 0.90, "aurc": 0.90, "auroc": 0.90}}
"""What intervals are to hold, in general and for some metrics (by how their names begin) at a
number of examples."""

Found = dict[str, Metric]


def required(name: str, n: int, repeats: int) -> float:
    """Share of intervals below which they do not hold: two standard errors of the simulation."""
    kinds = LEAST_OF.get(n, {})
    share = next((least for kind, least in kinds.items() if name.startswith(kind)), LEAST)
    return share - 2 * float(np.sqrt(share * (1 - share) / repeats))


def held(found: Sequence[Found], truth: Found) -> dict[str, float]:
    """Share of intervals that hold the truth, at the threshold where fewest do."""
    out = {}
    for name, exact in truth.items():
        low, high = (
            np.stack([getattr(one[name], end) for one in found]) for end in ("low", "high")
        )
        inside = (low <= exact.value + 1e-12) & (exact.value - 1e-12 <= high)
        first = 1 if ALL[name].difference_of else 0
        out[name] = float(inside[:, first:].mean(axis=0).min())
    return out


def intervals(repeats: int, sizes: Sequence[int], truth_draws: int) -> Iterator[str]:
    """Tables of coverage, one of classifiers and one of regressions."""
    for make, names in ((Classifier, CLASSES), (Regressor, NUMBERS)):
        shares: dict[tuple[str, int], dict[str, float]] = {}
        for name in names:
            model = make(name)
            truth = model.metrics(None, 1, truth_draws)
            for n in sizes:
                found = [model.metrics(n, 1000 * n + k) for k in range(1, repeats + 1)]
                shares[name, n] = held(found, truth)
        yield "| metric | " + " | ".join(f"{name}, N = {n}" for name, n in shares) + " |"
        yield "|---" * (len(shares) + 1) + "|"
        for metric in next(iter(shares.values())):
            cells = []
            for (_, n), of in shares.items():
                mark = "" if of[metric] >= required(metric, n, repeats) else " **below**"
                cells.append(f"{100 * of[metric]:.1f}{mark}")
            yield f"| `{metric}` | " + " | ".join(cells) + " |"
        yield ""


def bands(repeats: int, sizes: Sequence[int], truth_draws: int) -> Iterator[str]:
    """Whether bands hold at all of 6 thresholds, and intervals one by one do."""
    yield (
        "| metric | "
        + " | ".join(f"{name}, N = {n}: band | one by one" for name in CLASSES for n in sizes)
        + " |"
    )
    yield "|---" * (2 * len(CLASSES) * len(sizes) + 1) + "|"
    rows: dict[str, list[str]] = {
        name: [] for name, definition in CLASSIFICATION.items() if definition.has_band
    }
    for population in CLASSES:
        model = Classifier(population, n_examples=5000, n_thresholds=6)
        truth = model.metrics_of_test(None, 1, truth_draws)
        for n in sizes:
            found = [model.metrics_of_test(n, 1000 * n + k) for k in range(1, repeats + 1)]
            for name, cells in rows.items():
                for ends in (("band_low", "band_high"), ("low", "high")):
                    low, high = (
                        np.stack([getattr(one[name], end) for one in found]) for end in ends
                    )
                    exact = truth[name].value
                    inside = ((low <= exact + 1e-12) & (exact - 1e-12 <= high)).all(axis=1)
                    cells.append(f"{100 * inside.mean():.1f}")
    for name, cells in rows.items():
        yield f"| `{name}` | " + " | ".join(cells) + " |"
    yield ""


def steps(repeats: int, n: int, truth_draws: int) -> Iterator[str]:
    """Monte Carlo errors of metrics in steps: half-samples, and the jackknife beside them."""
    yield (
        "| metric | "
        + " | ".join(f"{name}: error / deviation | its own variation" for name in CLASSES)
        + " |"
    )
    yield "|---" * (2 * len(CLASSES) + 1) + "|"
    rows: dict[str, list[str]] = {
        name: []
        for name, definition in CLASSIFICATION.items()
        if definition.has_halves and definition.has_draws and not definition.difference_of
    }
    for population in CLASSES:
        model = Classifier(population, n_examples=n)
        truth = model.metrics_of_one_set(n, 0, truth_draws)
        found = [model.metrics_of_one_set(n, seed, 100) for seed in range(1, repeats + 1)]
        for name, cells in rows.items():
            value, se = (
                np.array([getattr(one[name], of)[1] for one in found]) for of in ("value", "se")
            )
            away = np.sqrt(np.mean((value - truth[name].value[1]) ** 2))
            cells += [
                f"{np.sqrt(np.mean(se**2)) / away:.2f}" if away else "–",
                f"{se.std() / se.mean():.2f}" if se.any() else "–",
            ]
    for name, cells in rows.items():
        yield f"| `{name}` | " + " | ".join(cells) + " |"
    yield ""


def steps_of_one_number(repeats: int) -> Iterator[str]:
    """A share of examples on one side of a border, by both ways, where few or many are near it."""
    yield "| share of 500 numbers above 0, spread | half-samples | jackknife |"
    yield "|---|---|---|"
    generator = np.random.default_rng(0)
    group = np.arange(50) % 20
    for spread in (0.3, 1.0, 5.0):
        centre = generator.normal(0, spread, 500)
        truth, squares, errors = (centre > 0).mean(), [], np.zeros((2, repeats))
        for k in range(repeats):
            draws = centre + generator.normal(size=(50, 500))
            value = np.asarray((draws.mean(axis=0) > 0).mean())
            halves = [(draws[half[group]].mean(axis=0) > 0).mean() for half in half_samples(20)]
            left = [(draws[group != g].mean(axis=0) > 0).mean() for g in range(20)]
            sizes = np.bincount(group).tolist()
            errors[0, k] = half_sample_error(value, np.array(halves), sizes)
            errors[1, k] = jackknife(value, np.array(left), sizes)[1]
            squares.append((value - truth) ** 2)
        cells = [
            f"{np.sqrt(np.mean(of**2) / np.mean(squares)):.2f}, {of.std() / of.mean():.2f}"
            for of in errors
        ]
        yield f"| {spread:g} | " + " | ".join(cells) + " |"
    yield ""


def stopping(repeats: int) -> Iterator[str]:
    """Where drawing ends as soon as the error that is found is small: ``--target_se``."""
    yield "| error asked for / that of 200 draws | value ± t · found | value ± 1.96 · asked |"
    yield "|---|---|---|"
    generator = np.random.default_rng(0)
    quantile = stats.t.ppf(0.975, 19)
    for asked in (1.5, 1.2, 1.0, 0.8, 0.5):
        limit = asked / np.sqrt(100)
        total, size = np.zeros((20, repeats)), np.zeros(20, int)
        ends = np.zeros((2, repeats))
        is_open = np.ones(repeats, bool)
        for n_pairs in FIRST_TEST // 2 * 2 ** np.arange(8):
            more = np.bincount(np.arange(n_pairs) % 20) - size
            total += np.sqrt(more)[:, None] * generator.normal(size=total.shape)
            size += more
            left = (total.sum(axis=0) - total) / (n_pairs - size)[:, None]
            value, error = jackknife(total.sum(axis=0) / n_pairs, left, size.tolist())
            ends[:, is_open] = value[is_open], error[is_open]
            is_open &= error > limit
        value, error = np.abs(ends[0]), ends[1]
        shares = (value <= quantile * error).mean(), (value <= 1.96 * limit).mean()
        yield f"| {asked:g} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |"
    yield ""


def rare_losses(repeats: int) -> Iterator[str]:
    """Rises that are small but for a rare large loss: what a test set lacks no interval knows."""
    yield "| rise N(0, 0.02) and rare losses of | N | held | above |"
    yield "|---|---|---|---|"
    generator = np.random.default_rng(0)
    rise = CLASSIFICATION["nll_rise"]
    for loss in (0.5, 5.0, 15.0):
        for n in (100, 359, 1_000, 10_000):
            some = max(repeats * 359 // max(n, 359), 100)
            inside, above = 0, 0
            for _ in range(some):
                values = generator.normal(0, 0.02, n) + loss * (generator.random(n) < 0.02 / loss)
                both = np.stack([np.zeros(n), values])
                nothing = np.zeros((20, 2))
                estimate = Estimate(both.mean(axis=1), nothing + both.mean(axis=1), both)
                metric = estimate.metric([5] * 20, rise)
                assert metric.low is not None and metric.high is not None
                inside += bool(metric.low[1] <= 0.02 <= metric.high[1])
                above += bool(metric.high[1] < 0.02)
            shares = f"{100 * inside / some:.1f} | {100 * above / some:.1f}"
            yield f"| {loss:g} nats | {n:,} | {shares} |"
    yield ""


def network(asked: argparse.Namespace) -> Iterator[str]:
    """The table of a real network."""
    arguments = [
        f"--model_dir={asked.model_dir}",
        f"--thresholds={asked.thresholds}",
        f"--draw_noise={asked.draw_noise}",
        *([f"--data_path={asked.data_path}"] if asked.data_path else []),
    ]
    logging.disable(logging.INFO)
    truth = repeat([*arguments, f"--num_monte_carlo={asked.truth_draws}"], [asked.sweeps])
    draws = f"--num_monte_carlo={asked.num_monte_carlo}"
    found = repeat([*arguments, draws], range(asked.sweeps))
    quantile = stats.t.ppf(0.975, 19)
    columns = " | ".join(f"{value:g}: held | off" for value in found.threshold)
    yield f"| metric | {columns} |"
    yield "|---" * (2 * len(found.threshold) + 1) + "|"
    for name in METRICS:
        away = found.value[name] - truth.value[name]
        held = (np.abs(away) <= quantile * found.se[name] + 1e-12).mean(axis=0)
        size = np.sqrt((found.se[name] ** 2).mean(axis=0))
        with np.errstate(invalid="ignore", divide="ignore"):
            off = away.mean(axis=0) / size
        cells = [
            f"{100 * share:.1f} % | {part:+.2f}" for share, part in zip(held, off, strict=True)
        ]
        yield f"| `{name}` | " + " | ".join(cells) + " |"


def simulated(asked: argparse.Namespace) -> Iterator[str]:
    """The tables of made-up networks."""
    sizes = [int(size) for size in asked.examples.split(",")]
    few = max(asked.repeats // 10, 2)
    yield from intervals(asked.repeats, sizes, asked.population_draws)
    yield from bands(few, sizes, asked.population_draws)
    yield from steps(few, 500, asked.population_draws)
    yield from steps_of_one_number(few)
    yield from rare_losses(asked.repeats)
    yield from stopping(32 * asked.repeats)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", default="all", choices=["all", "simulated", "network"])
    parser.add_argument("model_dir", nargs="?", default="embedded:digits_fc", help="(%(default)s)")
    parser.add_argument("--draw_noise", default="shared", help="of the draws (%(default)s)")
    parser.add_argument("--data_path", help="test set; without, the embedded digits")
    parser.add_argument("--thresholds", default="0,0.5,1")
    parser.add_argument("--num_monte_carlo", type=int, default=200, help="draws (%(default)s)")
    parser.add_argument("--sweeps", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--truth_draws", type=int, default=40_000, help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=2000, help="test sets (%(default)s)")
    parser.add_argument("--examples", default="100,500", help="in a test set (%(default)s)")
    parser.add_argument("--population_draws", type=int, default=4000, help="(%(default)s)")
    asked = parser.parse_args(argv)
    for made in (simulated, network):
        if asked.what in ("all", made.__name__):
            for line in made(asked):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
