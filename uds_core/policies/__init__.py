"""The policies, one family a file. Importing this package registers them."""

from .controls import Full, Longest, Random
from .loss import MaxLoss
from .reference import Reference, isometric_alpha, published_alpha
from .uds import UDS

__all__ = ["UDS", "Full", "Longest", "MaxLoss", "Random", "Reference", "isometric_alpha", "published_alpha"]
