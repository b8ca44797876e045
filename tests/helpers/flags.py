"""Flags that messages name."""

from __future__ import annotations

import re

from bprune_hpc.config.argument_file import ArgumentParser


def foreign_flags(message: str, parser: ArgumentParser) -> set[str]:
    """Flags that a message names and a command does not take."""
    return set(re.findall(r"--[a-z]\w*", message)) - set(parser._option_string_actions)
