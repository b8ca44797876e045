"""Job scripts for Slurm, PBS and Cobalt, which come with the package: their names, and copies.

    bprune jobs
    bprune jobs --copy jobs

What a script does is described in ``docs/clusters.md``; what to type for a sweep of a certain size
is told by ``bprune sweep --plan``.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .job import startup

if __name__ == "__main__":
    startup.begin(saves=False)

from . import sources, streams
from .config.argument_file import ArgumentParser
from .errors import ConfigError
from .mpi.comm import SerialComm, run

_HERE = "$BPRUNE_HOME/jobs"
"""Where scripts look for one another as they are shipped."""
_SPECIAL = re.compile(r'["$`\\\n]')


def parser() -> ArgumentParser:
    """Flags of the command."""
    root = ArgumentParser(
        prog="bprune jobs",
        description="List the job scripts, or write copies of them to be changed: each begins with "
        "what it does and what can be set.",
    )
    root.add_argument("--copy", metavar="DIR", help="write them into DIR, which is made if need be")
    return root


def jobs(argv: Sequence[str]) -> int:
    """List or copy the scripts."""
    arguments: Any = parser().parse(argv)
    scripts = sorted(sources.shipped("jobs").glob("*.sh"))
    if arguments.copy is None:
        for path in scripts:
            if not path.name.startswith("common"):
                streams.show(f"{path.name:24} {_purpose(path.read_text())}")
        streams.show("bprune jobs --copy DIR writes them into DIR.")
        return 0
    if not arguments.copy:
        raise ConfigError("--copy: is empty; name a directory")
    directory = Path(arguments.copy).expanduser()
    copy(scripts, directory)
    streams.show(f"{len(scripts)} scripts in {directory}; look through one, then submit it")
    return 0


def copy(scripts: Sequence[Path], directory: Path) -> None:
    """Write scripts into a directory, so that they find one another there.

    Raises
    ------
    ConfigError
        If the directory holds another file of one of these names, or cannot be named in a script.
    """
    here = str(directory.absolute())
    if _SPECIAL.search(here):
        raise ConfigError(f'--copy: {here!r} has one of "$`\\ in its name; choose another')
    texts = {path.name: path.read_text().replace(_HERE, here) for path in scripts}
    for name, text in texts.items():
        target = directory / name
        if target.exists() and (not target.is_file() or target.read_text(errors="replace") != text):
            raise ConfigError(f"--copy: {target} is there already; move it, or name another DIR")
    directory.mkdir(parents=True, exist_ok=True)
    for path in scripts:
        target = directory / path.name
        target.write_text(texts[path.name])
        target.chmod(0o755)


def _purpose(text: str) -> str:
    """The first sentence of the comment that says what a script does."""
    first = re.search(r"^# ((?:A sweep|Training|Train|A )[^.:]*)", text, re.MULTILINE)
    return " ".join(first[1].replace("#", " ").split()) if first else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``bprune jobs``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: comm.from_root(lambda: jobs(arguments)), SerialComm, logging.WARNING)


if __name__ == "__main__":
    startup.end(main)
