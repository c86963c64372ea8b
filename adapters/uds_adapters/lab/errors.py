"""What the user can mend, and what the user did."""

__all__ = ["Interrupted", "LabError"]


class LabError(Exception):
    """Wrong input. Its text names what was expected, what came and the remedy, and is all that the user sees."""


class Interrupted(Exception):  # noqa: N818 - Ctrl-C is no error
    """Ctrl-C. Its text says what is kept and how to go on; the exit code is 130."""
