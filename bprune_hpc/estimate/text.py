"""The text of an estimate, for a person who is about to submit a sweep."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluators.selection import FORMS
from ..results.resume import Saved
from ..runner.network import Network
from ..runner.preparation import PreparedSweep
from .cost_model import Memory, Timeline
from .submission import NO_FILE, Lines, Request, clock

_INDENT = 13
_WIDTH = 100


@dataclass(frozen=True)
class Estimate:
    """What is said of a sweep.

    Attributes
    ----------
    n_ranks, n_here, n_asked : int
        Ranks that it is for, those that rehearsed, and those that it says to ask for.
    n_cores : int
        That the ranks of this host may run on.
    multiplications : int or None
        Of one draw for one example, with nothing left out; None: not to be counted.
    saved : Saved or None
        What the results file has.
    start_s : float
        Start of the program, and reading.
    timelines : mapping of int to Timeline
        By the number of ranks: those above, and others to compare with.
    """

    sweep: PreparedSweep
    n_ranks: int
    n_here: int
    n_asked: int
    n_cores: int
    multiplications: int | None
    saved: Saved | None
    start_s: float
    timelines: dict[int, Timeline]
    memory: Memory
    file_bytes: int

    @property
    def timeline(self) -> Timeline:
        """With the ranks that it is for."""
        return self.timelines[self.n_ranks]

    @property
    def asked(self) -> Timeline:
        """With the ranks that it says to ask for."""
        return self.timelines[self.n_asked]

    @property
    def n_examples(self) -> int:
        """Of all sets."""
        return sum(map(len, self.sweep.datasets))

    @property
    def n_evaluations(self) -> int:
        """Of the network, by draws, thresholds and examples."""
        return len(self.sweep.costs) * self.sweep.config.n_draws * self.n_examples


def text(estimate: Estimate, request: Request, lines: Sequence[Lines]) -> str:
    """The whole of what is printed."""
    network = estimate.sweep.network
    rows = [
        ("network", _network(network)),
        ("work", _work(estimate)),
        ("operations", _operations(estimate)),
        ("evaluator", f"{network.evaluator}: {FORMS[network.evaluator]}"),
        ("results", _results(estimate)),
        ("time", _time(estimate)),
        ("", _other_numbers(estimate)),
        ("memory", _memory(estimate.memory)),
        ("ask for", _limit(estimate, request)),
    ]
    wrapped = [
        textwrap.fill(
            what, _WIDTH, initial_indent=name.ljust(_INDENT), subsequent_indent=" " * _INDENT
        )
        for name, what in rows
    ]
    return "\n".join(
        [
            "A plan: nothing is swept, and no results file is written.",
            *wrapped,
            "",
            *_typed(request, lines),
        ]
    )


def _network(network: Network) -> str:
    n_fixed = sum(value.size for value in network.fixed.values())
    n_prunable = network.posterior.n_weights
    return (
        f"{network.checkpoint}: {n_prunable + n_fixed:,} weights, {n_prunable:,} of them with a "
        "posterior, which can be pruned"
    )


def _work(estimate: Estimate) -> str:
    config = estimate.sweep.config
    at_most = "at most " if config.target is not None else ""
    return (
        f"{len(estimate.sweep.costs)} {config.grid_kind}s x {at_most}{config.n_draws} draws x "
        f"{estimate.n_examples:,} examples = {estimate.n_evaluations:,} evaluations of the network"
    )


def _operations(estimate: Estimate) -> str:
    total = "cannot be counted"
    if estimate.multiplications is not None:
        each = 2 * estimate.multiplications
        total = f"{each:,} an evaluation, {estimate.n_evaluations * each:.2g} in all"
    share = float(np.mean(estimate.sweep.costs)) / max(estimate.sweep.costs)
    if share > 0.995:
        return total
    return f"{total}; without what pruning has made idle about {100 * share:.0f} % of that work"


def _results(estimate: Estimate) -> str:
    where = f"{estimate.sweep.config.output}: {_bytes(estimate.file_bytes)}"
    if estimate.saved is None:
        return f"{where}, begun anew" if estimate.sweep.config.overwrite else where
    progress = estimate.saved.progress(estimate.sweep.plan.draws_per_replicate)
    is_left = estimate.timeline.n_writes > 0
    rest = "times are of what is left" if is_left else "nothing is left to be done"
    return f"{where}; it is there, {estimate.saved.status}, with {progress}: {rest}"


def _time(estimate: Estimate) -> str:
    timeline = estimate.timeline
    total = estimate.start_s + timeline.seconds
    ranks = _count(estimate.n_ranks, "rank")
    parts = (
        f"{_seconds(estimate.start_s)} to start and read, {_seconds(timeline.draw_s)} to draw, "
        f"{_seconds(timeline.reduce_s + timeline.write_s)} for sums, statistics and "
        f"{_count(timeline.n_writes, 'write')}"
    )
    basis = (
        f"draws as measured with {_count(estimate.n_here, 'rank')} here at the same time, without "
        "what others took of the processors meanwhile"
    )
    n_threads = estimate.n_ranks * estimate.sweep.config.num_intra
    if estimate.n_ranks != estimate.n_here or n_threads > estimate.n_cores:
        basis += (
            f"; {ranks} are taken to have a core like those here for each of their "
            f"{_count(estimate.sweep.config.num_intra, 'thread')}"
        )
    return f"{_seconds(total)} on {ranks}: {parts} ({basis})"


def _other_numbers(estimate: Estimate) -> str:
    times = [
        f"{n}: {_seconds(estimate.start_s + timeline.seconds)}"
        for n, timeline in sorted(estimate.timelines.items())
        if n != estimate.n_ranks
    ]
    return f"on other numbers of ranks: {', '.join(times)}"


def _memory(memory: Memory) -> str:
    if memory.n_ranks == 1:
        return f"{memory.root_mib:,.0f} MiB at its peak"
    return (
        f"at its peak {memory.root_mib:,.0f} MiB on rank 0, {memory.other_mib:,.0f} MiB on each "
        f"other, {memory.together_mib:,.0f} MiB in all (what ranks of a node share is counted for "
        "each)"
    )


def _limit(estimate: Estimate, request: Request) -> str:
    n_nodes, per_node = request.placed(request.n_cores)
    small = ""
    if estimate.n_asked < estimate.n_ranks:
        small = (
            f"{_count(estimate.n_asked, 'rank')} on one node, not {estimate.n_ranks}: that takes "
            f"{_seconds(estimate.start_s + estimate.asked.seconds)}, and more nodes would wait "
            "longer in the queue than they save. "
        )
    return small + (
        f"{clock(request.seconds)} of time: a quarter more than predicted, the margin in which a "
        f"sweep stops, and 2 minutes to start; {_count(n_nodes, 'node')} if they have "
        f"{_count(request.n_cores, 'core')} like this one, {_count(per_node, 'rank')} each. A job "
        "that is too short goes on in the next"
    )


def _typed(request: Request, lines: Sequence[Lines]) -> list[str]:
    out = []
    if request.argument_file is None:
        out.append(f"{NO_FILE}, below, is a file of these arguments, one a line.")
    for of_launcher in lines:
        after = ", after these directives in the script:" if of_launcher.directives else ""
        out.append(f"{of_launcher.title}{after}")
        out += [f"    {line}" for line in (*of_launcher.directives, of_launcher.command)]
    return out


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _seconds(seconds: float) -> str:
    """Two digits, in the replicate that people take."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _bytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.2g} MB" if n_bytes < 1e7 else f"{n_bytes / 1e6:,.0f} MB"
