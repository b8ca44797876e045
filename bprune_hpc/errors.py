"""Exceptions of the project: each message names the file, what was found, and what to do.

Only what a user can cause stands here. Anything else that goes wrong is a bug and keeps its
traceback.
"""


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


def message_of(error: BaseException) -> str:
    """One line for a user: the message, with the kind of error where it is not one of ours."""
    if isinstance(error, BpruneError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; check the path and its permissions"
    return f"{type(error).__name__}: {error}"


def status_of(error: BaseException) -> int:
    """Exit status for an error that rank 0 has found."""
    return error.exit_status if isinstance(error, BpruneError) else InputError.exit_status
