"""Exceptions of the project: each message names the file, what was found, and what to do.

Only what a user can cause stands here. Anything else that goes wrong is a bug and keeps its
traceback.
"""

from __future__ import annotations

import re

# As the loader, the system, and C++ say it.
_NO_MEMORY = re.compile("failed to map segment|[Cc]annot allocate memory|std::bad_alloc")
_NO_THREAD = "can't start new thread"


class BpruneError(Exception):
    """Base of all errors that end a command with one line instead of a traceback."""

    exit_status = 1


class InputError(BpruneError):
    """Bad arguments or bad input: nothing was computed, nothing that existed was changed."""

    exit_status = 2


class ConfigError(InputError):
    """A flag, an argument file or a value in it is wrong."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or not what the graph needs."""


class GraphError(InputError):
    """A graph has no mean-field posterior, or holds something that cannot be evaluated."""


class DataError(InputError):
    """A data set is missing, damaged, or does not fit the network."""


class LaunchError(InputError):
    """The processes were started in a way that would make them overwrite one another."""


class ResultsError(InputError):
    """A results file cannot be written where it was asked for, or cannot be read."""


class DamagedError(ResultsError):
    """A results file is not as it was written."""


class LockError(InputError):
    """Another job is writing the same results file."""


class WriteError(BpruneError):
    """Results that were computed could not be written."""


class ExportError(BpruneError):
    """What was exported does not give the network's own numbers; it is not kept."""


def message_of(error: BaseException) -> str:
    """One line for a user: the message, with the kind of error where it is not one of ours."""
    if isinstance(error, BpruneError):
        return str(error)
    if short := shortage(error):
        return (
            f"out of memory or of threads ({_one_line(short)}); start fewer ranks on a host, or "
            "raise the limits (ulimit -v and -u, or what the job asks for)"
        )
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; check the path and its permissions"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return _one_line(error)


def shortage(error: BaseException) -> BaseException | None:
    """What says that this process, or a library that it loads, was refused memory or a thread.

    Returns
    -------
    BaseException or None
        The error itself, or one that it came of.
    """
    link: BaseException | None = error
    while link is not None:
        is_short = isinstance(link, MemoryError) or type(link).__name__ == "ResourceExhaustedError"
        is_refused = isinstance(link, (OSError, ImportError)) and _NO_MEMORY.search(str(link))
        if is_short or is_refused or str(link) == _NO_THREAD:
            deeper = link.__cause__ or link.__context__
            return (shortage(deeper) if deeper is not None else None) or link
        link = link.__cause__ or link.__context__
    return None


def is_bug(error: BaseException) -> bool:
    """Whether it is not known how a user, or the machine, can have caused it."""
    if isinstance(error, ImportError):
        return (error.name or "").startswith(__package__)
    known = isinstance(error, (BpruneError, OSError, KeyboardInterrupt))
    return not (known or shortage(error))


def _one_line(error: BaseException) -> str:
    """The kind of error, and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def status_of(error: BaseException) -> int:
    """Exit status for an error that rank 0 has found."""
    return error.exit_status if isinstance(error, BpruneError) else InputError.exit_status
