"""Errors that a user can act on. The command line prints them as one line and exits with `exit_code`."""


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
