"""The README says only what works: its commands exist, and those in ``bash`` blocks are run.

A ``bash`` block can be run from the root of a clone, with the environment's ``bin`` first on PATH,
except the lines that set it up or hand it to a scheduler. Blocks of other languages, and those of
the site's pages: ``test_code_blocks.py``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.launch import LIMIT_S, ROOT
from tests.helpers.markdown import commands, fenced_blocks, package_call

README = ROOT / "README.md"
MAKEFILE = (ROOT / "Makefile").read_text()

NOT_RUN = ("make", "git", "cd", "source", ".", "pip", "module", "sbatch", "srun", "qsub", "aprun")


def runnable(text: str) -> str:
    """One script of all that can be run, in order."""
    lines = []
    for block in fenced_blocks(text):
        if block.language == "bash":
            for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
                if line.split() and line.split()[0] not in NOT_RUN:
                    lines.append(line)
    return "\n".join(lines)


def readme() -> str:
    assert README.is_file(), "README.md is missing"
    return README.read_text(encoding="utf-8")


def environment() -> dict[str, str]:
    """What the Makefile exports for MPI, and the environment of this Python first on PATH."""
    found = dict(os.environ)
    for name, value in re.findall(r"^export (\w+) \?= (.*)$", MAKEFILE, re.MULTILINE):
        found.setdefault(name, value)
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
    return found


@cache
def help_of(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{module} --help: {done.stderr}"
    return done.stdout


def module_calls(text: str) -> list[tuple[str, list[str]]]:
    """Each ``python -m bprune_hpc.X`` and ``bprune X`` of a page, with its arguments."""
    return [call for call in map(package_call, commands(text)) if call]


SAMPLE = """
```bash
git clone URL && cd there   # set-up
make demo NP=4
mpirun -n 2 python -m bprune_hpc.sweep @ArgFilePrune.txt \\
    --seed=1
```
```console
$ python -m bprune_hpc.inspect --status results/sweep.h5
complete
```
```python
import bprune_hpc
```
"""


def test_commands_are_found_in_a_sample() -> None:
    assert commands(SAMPLE) == [
        "git clone URL",
        "cd there",
        "make demo NP=4",
        "mpirun -n 2 python -m bprune_hpc.sweep @ArgFilePrune.txt --seed=1",
        "python -m bprune_hpc.inspect --status results/sweep.h5",
    ]
    assert runnable(SAMPLE) == "mpirun -n 2 python -m bprune_hpc.sweep @ArgFilePrune.txt --seed=1"
    assert module_calls(SAMPLE) == [
        ("bprune_hpc.sweep", ["@ArgFilePrune.txt", "--seed=1"]),
        ("bprune_hpc.inspect", ["--status", "results/sweep.h5"]),
    ]


def test_make_targets_and_variables_exist() -> None:
    phony = re.search(r"^\.PHONY:(.*)$", MAKEFILE.replace("\\\n", ""), re.MULTILINE)
    assert phony
    targets = phony.group(1).split()
    variables = set(re.findall(r"^(?:export )?(\w+) [?:]?= ?", MAKEFILE, re.MULTILINE))
    made = [shlex.split(command) for command in commands(readme()) if command.startswith("make")]
    assert made, "the README does not say how to start"
    for words in made:
        for word in words[1:]:
            name, equals, _ = word.partition("=")
            assert name in (variables if equals else targets), f"{' '.join(words)}: {name}"


def test_modules_and_their_flags_exist() -> None:
    assert module_calls(readme()), "the README shows no command of the package"
    pages = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))]
    calls = [call for text in (readme(), *pages) for call in module_calls(text)]
    assert len(calls) > 30
    for module, arguments in calls:
        flags = set(re.findall(r"--[\w-]+", help_of(module)))
        for word in arguments:
            if word.startswith("--"):
                assert word.split("=")[0] in flags, f"{module}: {word}"
            elif word.startswith("@") and word != "@MyArguments.txt":  # the reader's own
                assert (ROOT / "configs" / word[1:]).is_file() or (ROOT / word[1:]).is_file(), word


def test_it_is_short() -> None:
    assert len(readme().splitlines()) <= 150, "the rest belongs into docs"


def test_files_that_are_named_exist() -> None:
    text = readme()
    named = set(re.findall(r"(?<![\w/.-])(?:configs|jobs|tools|benchmarks|tests)/[\w./-]*\w", text))
    named |= {link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link}
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing


@pytest.mark.slow
@pytest.mark.mpi
def test_its_commands_run(tmp_path: Path) -> None:
    demo = "mpirun -n 2 python -m bprune_hpc.sweep @ArgFilePrune.txt\n"  # what make demo runs
    script = demo + runnable(readme())
    assert "python -m bprune_hpc.export" in script
    # A copy, so that what the commands write does not land in the checkout.
    clone = tmp_path / "bprune_hpc"
    products = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, clone, ignore=products)
    shutil.rmtree(clone / "results", ignore_errors=True)
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=clone, env=environment(), capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
