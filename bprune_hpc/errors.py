"""Exceptions of the project: each message names the file, what was found, and what to do.

Only what a user can cause stands here. Anything else that goes wrong is a bug and keeps its
traceback.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

# As the loader, the system, and C++ say it.
_NO_MEMORY = re.compile("failed to map segment|[Cc]annot allocate memory|std::bad_alloc")
_NO_THREAD = "can't start new thread"
_READERS = {"google", "h5py", "numpy", "tensorflow", "tf_keras", *sys.stdlib_module_names}
"""Libraries that read files, whose own code stumbles over what is damaged in many ways."""
_OF_CODE = (AssertionError, AttributeError, TypeError)


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


class InstallationError(InputError):
    """Packages are installed that do not belong together."""


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


@contextlib.contextmanager
def damage(
    refuse: Callable[[Exception, str], BpruneError], accepts: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Refuse what is read in one line, whatever its bytes lead to; what is the code's goes through.

    Parameters
    ----------
    refuse : callable
        Makes the error to raise, of one that was raised and what it says in one line.
    accepts : tuple of type, optional
        Kinds that the bytes can lead to although they look like errors in code.
    """
    try:
        yield
    except BpruneError:
        raise
    except Exception as error:
        if (is_of_code(error) or shortage(error)) and not isinstance(error, accepts):
            raise
        reason = " ".join(str(getattr(error, "message", error)).split())[:200]
        raise refuse(error, reason) from error


def is_of_code(error: BaseException) -> bool:
    """Whether no bytes of a file can have caused an error, but code alone.

    It is so of what cannot be imported and of names that are not there; and of values of a kind
    that does not fit, unless a library that reads files came upon them.
    """
    if isinstance(error, ImportError | NameError):
        return True
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return True
    return isinstance(error, _OF_CODE) and home_of(error) not in _READERS


def is_own(error: BaseException) -> bool:
    """Whether an error is in code, and that is this package's: no model or file is to blame."""
    return isinstance(error, (NameError, *_OF_CODE)) and home_of(error) == __package__


def home_of(error: BaseException) -> str:
    """Name of the package whose code raised an error; empty for one that was not raised."""
    home, trace = "", error.__traceback__
    while trace is not None:
        home = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return home.partition(".")[0]


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
