"""How often 95 % Monte Carlo intervals hold what very many draws give, on a real network.

    python benchmarks/error_coverage.py
    python -m benchmarks.error_coverage DIR --data_path FILE --thresholds 0,0.5

The intervals are value ± t · ``NAME_se`` of sweeps that differ in their seed alone, with Student's
t of 19 degrees of freedom; the truth is one sweep of many draws with another seed. ``off`` is the
mean distance from it in units of the error. Prints Markdown.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import numpy as np
from scipy import stats

if __package__:
    from .common_draws import METRICS, repeat
else:
    from common_draws import METRICS, repeat  # type: ignore[no-redef]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model_dir", nargs="?", default="embedded:digits_fc", help="(%(default)s)")
    parser.add_argument("--draw_noise", default="shared", help="of the draws (%(default)s)")
    parser.add_argument("--data_path", help="test set; without, the embedded digits")
    parser.add_argument("--thresholds", default="0,0.5,1")
    parser.add_argument("--num_monte_carlo", type=int, default=200, help="draws (%(default)s)")
    parser.add_argument("--sweeps", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--truth_draws", type=int, default=40_000, help="(%(default)s)")
    asked = parser.parse_args(argv)
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
    rows = [f"| metric | {columns} |", "|---" * (2 * len(found.threshold) + 1) + "|"]
    for name in METRICS:
        away = found.value[name] - truth.value[name]
        held = (np.abs(away) <= quantile * found.se[name] + 1e-12).mean(axis=0)
        size = np.sqrt((found.se[name] ** 2).mean(axis=0))
        with np.errstate(invalid="ignore", divide="ignore"):
            off = away.mean(axis=0) / size
        cells = [
            f"{100 * share:.1f} % | {part:+.2f}" for share, part in zip(held, off, strict=True)
        ]
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
