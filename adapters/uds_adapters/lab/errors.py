"""Errors and warnings shown to the user without a traceback."""

__all__ = ["Interrupted", "LabError", "LabWarning"]


class LabError(Exception):
    """Wrong input. The text says what is wrong, what was expected and what to do; the user sees nothing else."""


class Interrupted(Exception):  # noqa: N818 - Ctrl-C is no error
    """Ctrl-C. The text says what is saved and how to resume; the exit code is 130."""


class LabWarning(UserWarning):
    """Input that is usable, but probably not what was meant. The command shows the text alone, and continues."""
