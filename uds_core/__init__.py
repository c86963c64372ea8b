"""Utility-Diversity Sampling: train on the part of each batch that teaches the most.

Functions score logits on any array library; policies choose; adapters (`uds_adapters`) put both into trainers.
"""

from ._array import Array
from ._host import to_host
from .candidates import Candidates, Features, Selection, pool
from .choice import Budget, greedy, round_robin, top_k
from .distortion import Distortion, distortion, fourier_rank, sketch_size
from .glance import glance, glance_width
from .gumbel import GumbelSelection, gumbel_top_k
from .head import Head, HeadRows
from .head_gradients import HeadGradients
from .layer_gradients import layer_products
from .learner import Learner, LearnerState
from .ledger import Ledger
from .losses import cross_entropy, entropy
from .memory import Memory, Reservoir, diversity, pool_part
from .ngrams import jaccard, ngram_counts, ngram_sketch
from .policies import (
    GREATS,
    RDS,
    UDS,
    Cascade,
    DivBS,
    DiversityOnly,
    Entropy,
    Fresh,
    Frobenius,
    Full,
    InfoBatch,
    Longest,
    LossDrop,
    LossEMA,
    MaxGrad,
    MaxLoss,
    NuclearOnly,
    Predicted,
    Progress,
    Quadrants,
    Random,
    Reference,
    RHOLoss,
    SelectiveBackprop,
    Shortest,
    Targeted,
    isometric_alpha,
    published_alpha,
)
from .policy import Needs, Policy
from .policy_spec import make_policy, parse_policy, parse_value
from .registry import get, name_of, names, register
from .sketch import FourierSketch, PairedSketch, ShiftedSketch
from .spectrum import frobenius_norm, nuclear_bounds, nuclear_norm
from .state import flatten, restore
from .tradeoff import Spreads, combine, spread

__all__ = [
    "GREATS",
    "RDS",
    "UDS",
    "Array",
    "Budget",
    "Candidates",
    "Cascade",
    "Distortion",
    "DivBS",
    "DiversityOnly",
    "Entropy",
    "Features",
    "FourierSketch",
    "Fresh",
    "Frobenius",
    "Full",
    "GumbelSelection",
    "Head",
    "HeadGradients",
    "HeadRows",
    "InfoBatch",
    "Learner",
    "LearnerState",
    "Ledger",
    "Longest",
    "LossDrop",
    "LossEMA",
    "MaxGrad",
    "MaxLoss",
    "Memory",
    "Needs",
    "NuclearOnly",
    "PairedSketch",
    "Policy",
    "Predicted",
    "Progress",
    "Quadrants",
    "RHOLoss",
    "Random",
    "Reference",
    "Reservoir",
    "Selection",
    "SelectiveBackprop",
    "ShiftedSketch",
    "Shortest",
    "Spreads",
    "Targeted",
    "combine",
    "cross_entropy",
    "distortion",
    "diversity",
    "entropy",
    "flatten",
    "fourier_rank",
    "frobenius_norm",
    "get",
    "glance",
    "glance_width",
    "greedy",
    "gumbel_top_k",
    "isometric_alpha",
    "jaccard",
    "layer_products",
    "make_policy",
    "name_of",
    "names",
    "ngram_counts",
    "ngram_sketch",
    "nuclear_bounds",
    "nuclear_norm",
    "parse_policy",
    "parse_value",
    "pool",
    "pool_part",
    "published_alpha",
    "register",
    "restore",
    "round_robin",
    "sketch_size",
    "spread",
    "to_host",
    "top_k",
]

__version__ = "0.1.0"
