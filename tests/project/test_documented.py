"""What the pages say of the program is what the code has: numbers, flags, commands.

A number that is a constant of the code stands on its page in a sentence of ``SENTENCES``. Where one
changes, the sentence is not found any more, and the page is to be written anew.
"""

from __future__ import annotations

import ast
import re

import pytest

from bprune_hpc import __version__, sweep, train
from bprune_hpc.__main__ import COMMANDS
from bprune_hpc.accumulators.classification import MAX_NLL
from bprune_hpc.config import flags, targets
from bprune_hpc.errors import InputError
from bprune_hpc.estimate import cost_model, submission
from bprune_hpc.evaluators import draw_noise, stacked_graph
from bprune_hpc.files import checksum, lock, lock_owner
from bprune_hpc.inspection.tensors import COLLAPSED_BELOW_NATS
from bprune_hpc.job import deadline, provenance, signals
from bprune_hpc.metrics import stopping, tasks
from bprune_hpc.mpi.rendezvous import DEFAULT_LIMIT_MIN
from bprune_hpc.posterior.draws import N_GROUPS
from bprune_hpc.runner import output_probe
from bprune_hpc.runner.timing import (
    FIRST_ROUND_S,
    FIRST_WRITE_SHARE,
    ROUND_S,
    SUPERSTEP_S,
    WRITE_SHARE,
)
from bprune_hpc.runner.write_cost import BYTES_PER_S
from tests.helpers.launch import ROOT

DEFAULT = flags.parser().parse_args([])
MAX_JOBS = {
    int(found)
    for path in ROOT.glob("jobs/*.sh")
    for found in re.findall(r"MAX_JOBS:-(\d+)", path.read_text())
}
SECONDS = {0.5: "half a second", 1: "a second", 30: "half a minute", 60: "a minute",
           120: "two minutes", 300: "five minutes", 1800: "half an hour"}  # fmt: skip
SHARES = {0.1: "a tenth", 0.25: "a quarter"}
NUMBERS = {4: "four"}
TERM_S, INT_S = (signals._SAME_REQUEST_S[int(one)] for one in signals.CAUGHT[1:])

SENTENCES = {
    "docs/long_jobs.md": (
        f"A round takes **about {SECONDS[ROUND_S]}**",
        f"would otherwise take more than {100 * WRITE_SHARE:g} % of the time",
        f"The first round is short ({FIRST_ROUND_S:g} s)",
        f"up to {SECONDS[ROUND_S]} where its write would otherwise take more than "
        f"{SHARES[FIRST_WRITE_SHARE]} of the time",
        f"of the next write plus {deadline.SPARE_S:g} s;",
        f"and {BYTES_PER_S / 1e6:g} MB/s for the sums",
        f"groups of draws ({N_GROUPS} at most)",
        f"| {InputError.exit_status} | wrong arguments or input",
        f"| {sweep.STOPPED} | stopped early",
        f"| {sweep.FAILED} | done, but some thresholds failed",
        f"comes after {FIRST_ROUND_S:g} s of work, or up to {SECONDS[ROUND_S]} where it is "
        f"foretold to take more than {SECONDS[FIRST_ROUND_S * FIRST_WRITE_SHARE]}",
        f"every {SUPERSTEP_S:g} s or so",
        f"take longer than {SUPERSTEP_S * WRITE_SHARE:g} s (a stretch then lasts "
        f"{1 / WRITE_SHARE:g} times as long",
        f"A second SIGTERM, {TERM_S:g} s or more after the first",
        f"a second one, {SECONDS[INT_S]} or more after the first",
        f"after `BPRUNE_WAIT_LIMIT_MIN` minutes ({DEFAULT_LIMIT_MIN:g}; 0: never)",
        f"at most {SECONDS[train._SAVE_S]} earlier (longer where a checkpoint takes more than "
        f"{100 * train._SAVE_SHARE:g} % of them)",
        f"looks about once {SECONDS[train._LOOK_S]}",
        f"The first {checksum.BLOCK_BYTES} bytes",
        f"`tail -c +{checksum.BLOCK_BYTES + 1} FILE",
        f"Its time is renewed every {lock.RENEW_S:g} s",
        f"not renewed for {SECONDS[lock_owner.LEAST_SILENCE_S]};",
        f"not renewed for `--lock_timeout_min` ({DEFAULT.lock_timeout_min:g})",
    ),
    "docs/clusters.md": (
        f"next write and {SECONDS[deadline.SPARE_S]};",
        f"up to `MAX_JOBS` ({', '.join(map(str, MAX_JOBS))}) jobs in all",
        f"after {SECONDS[60 * DEFAULT_LIMIT_MIN]} without a sign of life",
        f"messages travel at {cost_model.LINK_BYTES_PER_S / 1e9:g} GB/s",
        f"{SHARES[submission._SHARE - 1]} more than the planned time, the margin in which a sweep "
        f"stops, and {SECONDS[submission._START_S]}",
        f"at most {draw_noise._NOISE_BYTES / 2**20:g} MiB of noise",
        f"what the network makes of it for {NUMBERS[stacked_graph._LOOPS_AT_ONCE]} draws",
    ),
    "docs/networks.md": (
        f"and {NUMBERS[output_probe._N_DRAWS]} draws for up to {output_probe._MOST_EXAMPLES} "
        "examples",
        f"sum to 1 within {tasks.ROUNDING:g} are probabilities",
        f"an NLL of {MAX_NLL:.1f} nats at most",
    ),
    "docs/inspect.md": (f"< {COLLAPSED_BELOW_NATS:g} nats.",),
    "docs/arguments.md": (
        f"posterior draws ({DEFAULT.num_monte_carlo})",
        f"examples evaluated at once ({DEFAULT.batch_size})",
        f"for an exact choice by NLL ({targets.SOFTEN:g})",
        f"stop at {', '.join(str(stopping.FIRST_TEST * 2**n) for n in range(3))}, … draws",
        f"`DIR/sweep.h5` (`{DEFAULT.data_dir}/sweep.h5`)",
        f"that the sums may take on rank 0 ({DEFAULT.state_limit_gb:g})",
        f"is taken to be gone ({DEFAULT.lock_timeout_min:g})",
        f"threads per rank ({DEFAULT.num_intra})",
        f"operations of TensorFlow at once ({DEFAULT.num_inter})",
    ),
    "ARCHITECTURE.md": (f"**Groups** are the {N_GROUPS} sets of draws",),
    "CITATION.cff": (f" version: {__version__} ",),
}  # fmt: skip


@pytest.mark.parametrize("page", SENTENCES)
def test_numbers_are_those_of_the_code(page: str) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert [sentence for sentence in SENTENCES[page] if sentence not in text] == []


def test_every_flag_of_a_sweep_is_explained() -> None:
    said = set(re.findall(r"`(--\w+)", (ROOT / "docs/arguments.md").read_text(encoding="utf-8")))
    known = {name for action in flags.parser()._actions for name in action.option_strings}
    assert known - said == {"-h", "--help"}
    assert said <= known


IN_WORDS = {
    "checkpoint": "checkpoint", "graph": "network graph", "data": "test set",
    "ood data": "other (OOD) data", "training data": "training data",
    "prior of the graph": "prior in the graph", "task": "task", "output_kind": "kind of outputs",
    "grid": "thresholds instead of fractions",
}  # fmt: skip


def test_all_that_a_resume_refuses_is_told() -> None:
    page = (ROOT / "docs/long_jobs.md").read_text(encoding="utf-8")
    found = re.search(r"Refused are: (.*?) Digests are", page, re.DOTALL)
    assert found
    tree = ast.parse((ROOT / "bprune_hpc/results/identity.py").read_text())
    keys = {
        str(key.value)
        for function in tree.body
        if isinstance(function, ast.FunctionDef) and ast.unparse(function.returns) == "Identity"
        for node in ast.walk(function)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert len(keys) > 15
    keys |= set(provenance._CHOICES)
    said = " ".join(found[1].split())
    assert [key for key in keys if IN_WORDS.get(key, f"`--{key}`") not in said] == []


def test_every_command_has_its_part_of_the_page() -> None:
    titles = re.findall(r"^## (.*)$", (ROOT / "docs/commands.md").read_text(), re.MULTILINE)
    assert [title.lower() for title in titles] == list(COMMANDS)
