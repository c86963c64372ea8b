"""The policies, one file for each family. Importing this package registers them."""

from .ablations import DiversityOnly, Frobenius, NuclearOnly
from .baselines import Full, Longest, Random, Shortest
from .cascade import Cascade
from .entropy import Entropy, Quadrants
from .fresh import Fresh
from .head_gradient import GREATS, DivBS, MaxGrad
from .info_batch import InfoBatch
from .loss import MaxLoss, RHOLoss
from .loss_history import LossDrop, LossEMA
from .predicted import Predicted
from .progress import Progress
from .rds import RDS
from .reference import Reference, isometric_alpha, published_alpha
from .selective_backprop import SelectiveBackprop
from .targeted import Targeted
from .uds import UDS

__all__ = [
    "GREATS",
    "RDS",
    "UDS",
    "Cascade",
    "DivBS",
    "DiversityOnly",
    "Entropy",
    "Fresh",
    "Frobenius",
    "Full",
    "InfoBatch",
    "Longest",
    "LossDrop",
    "LossEMA",
    "MaxGrad",
    "MaxLoss",
    "NuclearOnly",
    "Predicted",
    "Progress",
    "Quadrants",
    "RHOLoss",
    "Random",
    "Reference",
    "SelectiveBackprop",
    "Shortest",
    "Targeted",
    "isometric_alpha",
    "published_alpha",
]
