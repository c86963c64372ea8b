"""The policies, one family a file. Importing this package registers them."""

from .controls import Full, Longest, Random
from .loss import MaxLoss
from .uds import UDS

__all__ = ["UDS", "Full", "Longest", "MaxLoss", "Random"]
