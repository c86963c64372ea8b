"""Selection of the samples whose hidden states resemble a target's."""

from dataclasses import dataclass
from typing import Any

from .._array import Array, array_namespace, constant, is_finite, to_numpy, wide_dtype
from ..candidates import Candidates, Features, Selection
from ..choice import round_robin
from ..logits import HeadLogits
from ..policy import Needs
from ..registry import register
from ._budgeted import Budgeted
from ._ranked import Stateless
from ._scored import Scored


@register("rds")
@dataclass(frozen=True, kw_only=True, eq=False)
class RDS(Budgeted):
    r"""Keep the samples whose hidden states are most like those of a target's samples, for each of these in turn.

    .. math:: z_i = \frac{\sum_t t\, h_{it}}{\sum_t t}, \qquad s_{ij} = \cos(z_i, z_j^{\text{target}})

    h: the hidden states that go into the LM head, of all tokens that are no padding; t: their position, from 1. One
    after the other, each sample of the target takes the candidate most like it that is left.

    Parameters
    ----------
    keep, count
        The budget; see `Budget`.
    target
        (samples, width): the embeddings z of the target's samples, as `embed` returns them.

    Notes
    -----
    One forward pass of candidates and target, with one and the same model; no logits are made. `choose` costs
    O(batch samples log batch), on the host. It resembles the target's samples, their subject and their
    wording; near-duplicates are not put last. Source: RDS+, Ivison et al., arXiv 2503.01807.
    """

    needs = Needs()
    target: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None and getattr(self.target, "ndim", 0) != 2:
            msg = "`target` must be embeddings (samples, width), as `RDS().embed(candidates)` returns them"
            raise ValueError(msg)
        if self.target is not None:
            object.__setattr__(self, "target", to_numpy(self.target))

    def embed(self, candidates: Candidates, /) -> Array:
        """Return the embeddings (batch, width) of samples, of length 1; 0 for a sample without tokens."""
        logits = candidates.logits
        hidden = logits.hidden if isinstance(logits, HeadLogits) else candidates.hidden
        if hidden is None:
            msg = "RDS reads the hidden states: give `head(hidden)` as logits, or `hidden` beside them"
            raise ValueError(msg)
        xp = array_namespace(hidden)
        dtype = wide_dtype(hidden)
        present = xp.astype(candidates.scored("tokens"), dtype)
        weights = xp.cumulative_sum(present, axis=1) * present
        kept = xp.astype(hidden, dtype, copy=False)
        kept = xp.where(is_finite(kept), kept, xp.full_like(kept, xp.nan))
        kept = xp.where(weights[:, :, None] > 0, kept, xp.zeros_like(kept))
        mean = xp.sum(weights[:, :, None] * kept, axis=1)
        size = xp.sqrt(xp.sum(mean * mean, axis=1, keepdims=True))
        return mean / xp.where(size > 0, size, xp.ones_like(size))

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `similarity` (batch, samples of the target) and `length` (batch,)."""
        if self.target is None:
            msg = "`target` is missing: give RDS the embeddings of some samples of the target, RDS().embed(candidates)"
            raise ValueError(msg)
        embedding = self.embed(candidates)
        target = constant(self.target, like=embedding, dtype=embedding.dtype)
        if target.shape[1] != embedding.shape[1]:
            msg = f"`target` has a width of {target.shape[1]}, and the model's hidden states have {embedding.shape[1]}"
            raise ValueError(msg)
        return {"similarity": embedding @ target.T, "length": candidates.lengths()}

    def init(self, features: Features, /) -> Stateless:
        """Return the empty state."""
        return Stateless()

    def choose(
        self, state: Stateless | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, Stateless]:
        """Choose for each sample of the target in turn; scores are the highest similarity to any."""
        self.warn_without_budget()
        similarity = features["similarity"]
        best = array_namespace(similarity).max(similarity, axis=1)
        scored = Scored.of(features, best, groups=groups, similarity=similarity)
        indices = round_robin(scored.host["similarity"], scored.length, budget=self.budget, groups=scored.groups)
        return scored.selection(self.scored_only(indices, scored.numbers)), Stateless()
