"""Utility-Diversity Sampling: train on the part of each batch that teaches the most.

Functions score logits on any array library; policies choose; adapters (`uds_adapters`) put both into trainers.
"""

from ._array import Array
from .choice import Budget, Drawn, greedy, gumbel_top_k, top_k
from .distortion import Distortion, distortion, fourier_rank, sketch_size
from .head import Head
from .losses import cross_entropy
from .memory import Memory, Reservoir, diversity
from .policies import UDS, Full, Longest, MaxLoss, Random, Reference, isometric_alpha, published_alpha
from .policy import Candidates, Features, Policy, Selection, get, names, pool, register
from .sketch import FourierSketch, PairedSketch, ShiftedSketch
from .spectrum import frobenius_norm, nuclear_bounds, nuclear_norm
from .state import flatten, restore
from .tradeoff import Spreads, combine, spread

__all__ = [
    "UDS",
    "Array",
    "Budget",
    "Candidates",
    "Distortion",
    "Drawn",
    "Features",
    "FourierSketch",
    "Full",
    "Head",
    "Longest",
    "MaxLoss",
    "Memory",
    "PairedSketch",
    "Policy",
    "Random",
    "Reference",
    "Reservoir",
    "Selection",
    "ShiftedSketch",
    "Spreads",
    "combine",
    "cross_entropy",
    "distortion",
    "diversity",
    "flatten",
    "fourier_rank",
    "frobenius_norm",
    "get",
    "greedy",
    "gumbel_top_k",
    "isometric_alpha",
    "names",
    "nuclear_bounds",
    "nuclear_norm",
    "pool",
    "published_alpha",
    "register",
    "restore",
    "sketch_size",
    "spread",
    "top_k",
]

__version__ = "0.1.0"
