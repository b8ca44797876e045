"""Fenced blocks of Markdown pages, and the commands in them.

A block's language says what becomes of it: ``bash``, ``console`` (commands after ``$``) and
``python`` are run by the tests, ``{code-cell}`` when the site is built, and ``text`` is what
something prints or a file holds. One that cannot be run says why behind its language:
```` ```bash (not run: needs Slurm) ````.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, why it is not run, what is in it."""

    line: int
    language: str
    not_run: str
    text: str

    def commands(self) -> list[str]:
        """Simple commands of a ``bash`` or ``console`` block, with continued lines joined."""
        if self.language == "bash":
            lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        elif self.language == "console":
            joined = re.sub(r"\\\n(?:>\s)?\s*", "", self.text).splitlines()
            lines = [line[2:] for line in joined if line.startswith("$ ")]
        else:
            return []
        lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
        return [
            part.strip() for line in lines for part in re.split(r"&&|\|\|?|;", line) if part.strip()
        ]


def fenced_blocks(text: str) -> list[Block]:
    """All fenced blocks, in order; a fence that is not closed is an error."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        fence = re.fullmatch(r"\s*```(\S*)[ \t]*(.*?)\s*", line)
        if fence and opened is None:
            reason = re.fullmatch(r"\(not run: (.+)\)", fence[2])
            assert reason or not fence[2] or fence[1].startswith("{"), f"line {number}: {line}"
            opened = number, fence[1], reason[1] if reason else ""
        elif fence and not fence[1] and opened:
            found.append(Block(*opened, "".join(inside)))
            opened, inside = None, []
        elif opened:
            inside.append(line)
    assert opened is None, f"line {opened[0]}: the fence is not closed"
    return found


def commands(text: str) -> list[str]:
    """Simple commands of all ``bash`` and ``console`` blocks of a page."""
    return [command for block in fenced_blocks(text) for command in block.commands()]


def package_call(command: str) -> tuple[str, list[str]] | None:
    """The module that ``python -m bprune_hpc.X`` or ``bprune X`` runs, and its arguments."""
    words = shlex.split(command)
    for place, word in enumerate(words):
        if word == "-m" and words[place + 1].startswith("bprune_hpc"):
            return words[place + 1], words[place + 2 :]
        if word == "bprune" and words[place + 1 : place + 2]:
            name = words[place + 1]
            own = "bprune_hpc" if name.startswith("-") else f"bprune_hpc.{name}"
            return own, words[place + (1 if name.startswith("-") else 2) :]
    return None
