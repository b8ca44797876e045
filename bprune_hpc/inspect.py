"""What is in a case: its tensors, which of them have a posterior, and how far it was learnt.

    python -m bprune_hpc.inspect embedded:digits_fc --plot snr.png
    python -m bprune_hpc.inspect --status results/sweep.h5

Needs neither MPI nor Horovod nor data, and does not start MPI where there is one. The flags and
the order of the work stand here; the numbers are made in ``inspection.tensors``, laid out in
``inspection.text`` and drawn in ``inspection.figure``.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from .job import startup

if __name__ == "__main__":
    startup.begin(saves=False)

from . import streams
from .checkpoints.case import read_case
from .config.argument_file import ArgumentParser
from .config.flags import FEED, read_feed
from .errors import ConfigError, DamagedError
from .inspection import figure, text
from .inspection.tensors import COLLAPSED_BELOW_NATS, tensor_rows
from .mpi.comm import SerialComm, run
from .results.progress import progress_of

logger = logging.getLogger(__name__)

_EXIT_STATUS = {"complete": 0, "damaged": 1, "partial": 3}
_COMPLETE_WITH_FAILURES = 4


def inspect(argv: Sequence[str]) -> int:
    """Print the contents of a case, or the status of a results file.

    Parameters
    ----------
    argv : sequence of str
        Arguments without the program's name.

    Returns
    -------
    int
        Exit status: 0; for ``--status`` 3 of a partial file, 4 of a complete one with thresholds
        that failed, and 1 of a damaged one.

    Raises
    ------
    InputError
        If an argument is wrong, or what it names cannot be read.
    """
    arguments = _checked(parser().parse(argv))
    if arguments.status is not None:
        status = status_of(arguments.status)
        streams.show(status)
        streams.check_shown("the status is told by the exit status too", is_product=False)
        kind, _, more = status.partition(" ")
        return _COMPLETE_WITH_FAILURES if kind == "complete" and more else _EXIT_STATUS[kind]
    # What a user's model builder prints must not get into the product.
    with contextlib.redirect_stdout(sys.stderr):
        case = read_case(
            arguments.case,
            arguments.model_ckpt,
            model=arguments.model,
            input_op=arguments.input_op,
            logits_op=arguments.logits_op,
            loc_op=arguments.loc_op,
            scale_op=arguments.scale_op,
            feed=read_feed(arguments.feed),
        )
    prior_scale = arguments.prior_scale
    rows = tensor_rows(case.posterior, case.fixed, case.source.stripped, prior_scale)
    show = text.as_json if arguments.json else text.text
    shown = show(arguments.case, case, rows, prior_scale)
    if arguments.plot is not None:
        figure.plot(Path(arguments.plot), case.posterior, prior_scale)
    streams.show(shown)
    streams.check_shown("the tensors are not all told")
    return 0


def status_of(path: str | Path) -> str:
    """Status of a results file: ``complete``, ``partial 120/200 cells`` or ``damaged``.

    A complete one may say ``complete (2 thresholds failed)``. A cell is a unit of draws at one
    threshold; the first number grows from job to job.

    Raises
    ------
    ResultsError
        If there is no such file, it is not a sweep's, or it says neither of the first two.
    """
    try:
        return progress_of(path).text
    except DamagedError as error:
        logger.warning("%s", error)
        return "damaged"


def _checked(arguments: argparse.Namespace) -> argparse.Namespace:
    """Say what is wrong before TensorFlow, which takes seconds, is loaded."""
    if arguments.status is not None:
        if arguments.case is not None:
            raise ConfigError(f"--status: takes no case beside it; leave '{arguments.case}' out")
        return arguments
    if arguments.case is None:
        raise ConfigError("no case is named; give a directory or file, or embedded:digits_fc")
    if arguments.model is not None and not all(arguments.model.partition(":")):
        raise ConfigError(
            f"--model: '{arguments.model}' is not MODULE:FUNCTION or FILE.py:FUNCTION"
        )
    if not (math.isfinite(arguments.prior_scale) and arguments.prior_scale > 0):
        raise ConfigError(f"--prior_scale: {arguments.prior_scale:g} is not positive and finite")
    if arguments.plot is not None:
        figure.check_figure(Path(arguments.plot))
    return arguments


def parser() -> ArgumentParser:
    """Flags of the command."""
    root = ArgumentParser(
        prog="python -m bprune_hpc.inspect",
        description="Say what is in a case: where it is from, its input and output, and for each "
        "tensor whether it has a posterior, its signal-to-noise ratios, and the share of weights "
        "that have collapsed to the prior.",
    )
    root.add_argument(
        "case",
        nargs="?",
        metavar="CASE",
        help="directory or file of a network, or embedded:digits_fc",
    )
    root.add_argument("--model_ckpt", metavar="NAME", help="model.ckpt-N; default: the newest")
    root.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help="function that builds the tf_keras model of a weights file; or FILE.py:FUNCTION",
    )
    root.add_argument(
        "--input_op", metavar="OP", help="placeholder of the examples, if it is not found"
    )
    root.add_argument(
        "--logits_op", metavar="OP", help="operation that gives the logits, if it is not found"
    )
    root.add_argument("--feed", **FEED)
    root.add_argument(
        "--loc_op", metavar="OP", help="operation that gives the mean of a regression"
    )
    root.add_argument(
        "--scale_op", metavar="OP", help="operation that gives its standard deviation"
    )
    root.add_argument(
        "--prior_scale",
        type=float,
        default=1.0,
        metavar="SD",
        help="standard deviation of the weights' prior N(0, SD^2); a weight whose posterior is "
        f"within {COLLAPSED_BELOW_NATS:g} nats of it (KL) has collapsed; "
        "default: %(default)s",
    )
    root.add_argument("--json", action="store_true", help="print JSON and nothing else")
    root.add_argument("--plot", metavar="FILE", help="histograms of SNR: .png, .pdf, .svg")
    root.add_argument(
        "--status",
        metavar="FILE",
        help="print whether a results file is complete (exit status 0; 4 with thresholds that "
        "failed), partial (3) or damaged (1)",
    )
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bprune_hpc.inspect``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: comm.from_root(lambda: inspect(arguments)), SerialComm, logging.WARNING)


if __name__ == "__main__":
    startup.end(main)
