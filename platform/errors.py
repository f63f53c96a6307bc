"""Errors that a user can act on. The command line prints them as one line and exits with `exit_code`."""

_LONGEST_LINE = 200
"""Characters of another library's message."""


class ChexrayError(Exception):
    """Something in the data or the run is wrong: what, where, which value, what to do. Exit code 1."""

    exit_code = 1


class UsageError(ChexrayError):
    """The command or its settings are wrong. Exit code 2."""

    exit_code = 2


class StoppedError(ChexrayError):
    """The job was asked to stop, and can go on later. Exit code 143, as of a process that heeds SIGTERM."""

    exit_code = 143


class LostWorkersError(ChexrayError):
    """Workers died, more often than the run may outlive. Starting again may help. Exit code 1."""


class ClusterError(ChexrayError):
    """A cluster's head did not do what it was asked, and says why. Exit code 1."""


class UnreachableError(ClusterError):
    """No head of a Ray cluster answers at the address."""


class TokenError(ClusterError):
    """The head takes no requests without its token, or not with this one."""


class RunFailedError(ChexrayError):
    """A submitted job failed: its last error, and how to see all that it said. Exit code 1."""


class RunRefusedError(RunFailedError, UsageError):
    """A submitted job found its own settings wrong: nothing was done. Exit code 2."""

    exit_code = 2


class RunUnfinishedError(ChexrayError):
    """What a submitted job writes was asked for before it was written."""


class RunTimeoutError(RunUnfinishedError, TimeoutError):
    """A submitted job did not end within the time that it was waited for. It goes on."""


def first_line(error: BaseException) -> str:
    """What any error says, in one short line; its kind where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= _LONGEST_LINE else f"{lines[0][:_LONGEST_LINE]} ..."
