"""Measure everything, side by side: ``python -m benchmarks``, or ``make bench``.

Prints a table and writes ``results.json`` beside this file; with ``--quick``, whose small sizes say
nothing, another file. One part alone: ``--name dense``; the others stay in the file as they are.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from bprune_hpc.job import memory as process_memory

from . import (
    bprune,
    convolution_peers,
    convolutions,
    dense,
    export,
    memory,
    peers,
    ranks,
    standard_error,
    start,
    trained,
    training,
)
from .record import Measured, Record, measure
from .timing import Settings, use_one_thread

PARTS: dict[str, Callable[[Settings], Measured]] = {
    "dense": dense.run,
    "peers": peers.run,
    "bprune": bprune.run,
    "standard_error": standard_error.run,
    "convolutions": convolutions.run,
    "convolution_peers": convolution_peers.run,
    "trained": trained.run,
    "ranks": ranks.run,
    "memory": memory.run,
    "start": start.run,
    "training": training.run,
    "export": export.run,
}
_CORE_VARIABLE = "OPENBLAS_CORETYPE"
_CLOCKS = {"wall": time.perf_counter, "process": time.process_time}

logger = logging.getLogger("benchmarks")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that were asked for."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("bprune_hpc").setLevel(logging.WARNING)
    # TFP's layers call Keras by names that Keras calls deprecated, and share an initializer.
    warnings.filterwarnings("ignore", category=UserWarning, module="(tensorflow|tf_keras)")
    # So that what it has started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    use_one_thread()
    process_memory.keep_freed()  # as a sweep does
    if _CORE_VARIABLE in os.environ:
        logger.warning(
            "%s=%s: NumPy's products are not those that their library would choose; unset it",
            _CORE_VARIABLE, os.environ[_CORE_VARIABLE],
        )  # fmt: skip
    settings = Settings(options.quick, options.peers, _CLOCKS[options.clock])
    name_of_file = "results_quick.json" if options.quick else "results.json"
    output = options.output or Path(__file__).with_name(name_of_file)
    record = Record(output)
    failed: list[str] = []
    for name in options.name or PARTS:
        logger.info("%s ...", name)
        try:
            record.add(name, measure(PARTS[name], settings))
        except Exception:
            logger.exception("%s: failed", name)
            failed.append(name)
            continue
        logger.info("%s: %.0f s", name, record.parts[name]["seconds"])
    sys.stdout.write(f"{record.table()}\n\nresults: {output}\n")
    if failed:
        sys.stdout.write(f"failed, and as they were in the file: {', '.join(failed)}\n")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--name", action="append", choices=PARTS, help="only this part")
    parser.add_argument("--quick", action="store_true", help="small sizes: only shows that it runs")
    parser.add_argument(
        "--peers", action="store_true", help="PyTorch, bayesian-torch and JAX too, if installed"
    )
    parser.add_argument(
        "--clock", choices=_CLOCKS, default="wall",
        help="process: CPU seconds, for a machine that is busy (default: wall)",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="JSON file (default: beside this module)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
