"""What the user can mend."""

__all__ = ["LabError"]


class LabError(Exception):
    """Wrong input. Its text names what was expected, what came and the remedy, and is all that the user sees."""
