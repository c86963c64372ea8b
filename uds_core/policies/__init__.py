"""The policies, one family a file. Importing this package registers them."""

from .controls import Full, Longest, Random, Shortest
from .entropy import Entropy, Quadrants
from .fresh import Fresh
from .gradient import GREATS, DivBS, MaxGrad
from .history import LossDrop, LossEMA
from .loss import MaxLoss, RHOLoss
from .reference import Reference, isometric_alpha, published_alpha
from .selective import SelectiveBackprop
from .terms import DiversityOnly, Frobenius, NuclearOnly
from .uds import UDS

__all__ = [
    "GREATS",
    "UDS",
    "DivBS",
    "DiversityOnly",
    "Entropy",
    "Fresh",
    "Frobenius",
    "Full",
    "Longest",
    "LossDrop",
    "LossEMA",
    "MaxGrad",
    "MaxLoss",
    "NuclearOnly",
    "Quadrants",
    "RHOLoss",
    "Random",
    "Reference",
    "SelectiveBackprop",
    "Shortest",
    "isometric_alpha",
    "published_alpha",
]
