"""Argument files: ``@FILE`` on a command line, one argument a line.

A line holds ``--flag=value``, ``--flag value`` or ``--flag``; blank lines, ``#`` comments and
``$VARIABLES`` are allowed, and a file may name another with ``@FILE``. The last occurrence of a
flag wins, so that a command line can override a file. A name that is not found as it stands is
looked for in ``configs/``, here and as the package has it.

Reading arguments belongs here; what they mean belongs to the command that has them.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .. import sources
from ..errors import ConfigError

_MAX_DEPTH = 8


@dataclass(frozen=True)
class _Token:
    text: str
    origin: str  # "FILE:LINE" or "command line"


class _HelpFormatter(argparse.HelpFormatter):
    """Says the default of each flag that has one; flags are listed once, below the usage."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, is_value = action.help, isinstance(action.default, (str, int, float))
        if text is None or "default" in text or action.nargs == 0 or not is_value:
            return text
        return f"{text} (default: %(default)s)"

    def _format_usage(
        self, usage: str | None, actions: Any, groups: Any, prefix: str | None
    ) -> str:
        if usage is None:
            named = [action for action in actions if not action.option_strings]
            names = [self._format_args(action, action.metavar or action.dest) for action in named]
            usage = " ".join(["%(prog)s [flags]", *names])
        return super()._format_usage(usage, actions, groups, prefix)


class ArgumentParser(argparse.ArgumentParser):
    """An ``argparse`` parser that reads argument files and raises instead of exiting.

    Flags are never abbreviated. Every error is a :class:`ConfigError` that names the file and
    line, or the command line, where the argument stands.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _HelpFormatter)
        super().__init__(*args, **kwargs)
        self._origins: dict[str, str] = {}

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse a command line whose ``@FILE`` arguments are argument files.

        Raises
        ------
        ConfigError
            If a file cannot be read, a flag is not known, or a value does not fit.
        """
        tokens = _expand(self._joined(argv), "command line", None, 0)
        arguments: list[str] = []
        expects_value = False
        takes_positionals = bool(self._get_positional_actions())
        for token in tokens:
            flag = token.text.split("=", 1)[0]
            if token.text.startswith("--"):
                self._check_flag(flag, token.origin)
                self._origins[flag] = token.origin
                action = self._option_string_actions[flag]
                expects_value = "=" not in token.text and action.nargs != 0
            elif not expects_value and not token.text.startswith("-") and not takes_positionals:
                raise ConfigError(
                    f"{token.origin}: '{token.text}' is not a flag; "
                    "write --flag=value, or @FILE for an argument file"
                )
            else:
                expects_value = False
            arguments.append(token.text)
        return self.parse_args(arguments)

    def _joined(self, argv: Sequence[str]) -> list[str]:
        """A flag and the ``@FILE`` that is its value as one: that file is not this command's."""
        joined: list[str] = []
        for text in argv:
            action = self._option_string_actions.get(joined[-1]) if joined else None
            if text.startswith("@") and action is not None and action.nargs != 0:
                joined[-1] += f"={text}"
            else:
                joined.append(text)
        return joined

    def set_help(self, flag: str, text: str) -> None:
        """Say something else of a flag that another command has, too."""
        self._option_string_actions[flag].help = text

    @property
    def given(self) -> list[str]:
        """Flags that were on the command line, or in an argument file."""
        return list(self._origins)

    def _check_flag(self, flag: str, origin: str) -> None:
        if flag in self._option_string_actions:
            return
        near = difflib.get_close_matches(flag, self._option_string_actions, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        raise ConfigError(f"{origin}: unknown flag '{flag}'; {hint}")

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` as a :class:`ConfigError` (``argparse`` would exit)."""
        named = re.search(r"--\w+", message)
        origin = self._origins.get(named.group(), "command line") if named else "command line"
        raise ConfigError(f"{origin}: {message[:300]}; see {self.prog} --help")


def find(name: str, beside: Path | None = None) -> Path:
    """Path of an argument file: as named, beside the file that names it, or in ``configs/``.

    Raises
    ------
    ConfigError
        If there is no such file.
    """
    places = [Path(), *([beside] if beside else []), Path("configs"), sources.shipped("configs")]
    for place in places:
        candidate = place / os.path.expanduser(name)
        if candidate.is_file():
            return candidate
    raise ConfigError(f"{name}: no such argument file here or in configs/; check the name")


def _expand(argv: Sequence[str], origin: str, beside: Path | None, depth: int) -> list[_Token]:
    tokens: list[_Token] = []
    for text in argv:
        if not text.startswith("@"):
            tokens.append(_Token(text, origin))
            continue
        if depth == _MAX_DEPTH:
            raise ConfigError(f"{origin}: argument files nested deeper than {_MAX_DEPTH}: a loop?")
        path = find(text[1:], beside)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); give a text file") from error
        for number, line in enumerate(lines, 1):
            here = f"{path}:{number}"
            tokens += _expand(_split(line, here), here, path.parent, depth + 1)
    return tokens


def _split(line: str, origin: str) -> list[str]:
    """Tokens of one line: none, a file or word, or a flag with or without its value."""
    # A comment starts with # after a blank; what stands in quotes after = or a blank is a value.
    comment = re.compile(r"""((?:^|[\s=])(?:"[^"]*"|'[^']*'))|(?:^|\s)#.*""")
    line = comment.sub(lambda match: match[1] or "", line).strip()
    if not line:
        return []
    if "\0" in line:
        raise ConfigError(f"{origin}: holds a zero byte; give a text file")
    for name in re.findall(r"\$\{?(\w+)", line):
        if name not in os.environ:
            raise ConfigError(f"{origin}: variable ${name} is not set; export it")
    line = os.path.expandvars(line)
    flag, *rest = re.split(r"\s*=\s*|\s+", line, maxsplit=1) if line.startswith("--") else [line]
    if not rest:
        return [flag]
    value = rest[0]
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return [f"{flag}={value}"]
