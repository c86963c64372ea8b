"""InfoBatch: from the second epoch on, random pruning of the samples whose loss is low."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import _options, _random
from .._array import Array
from .._random import Stream
from ..candidates import Candidates, Features, Selection
from ..choice import Budget, top_k
from ..ledger import Ledger
from ..policy import Needs
from ..registry import register
from ._scored import Scored
from ._trained import Ids, Trained, after_choice, nobody, training_needs


class PrunedLosses(NamedTuple):
    """State of InfoBatch."""

    losses: Ledger  # the latest of each trained sample
    awaited: Ids  # (k,) of the chosen samples whose losses are awaited
    step: int


@register("infobatch")
@dataclass(frozen=True, kw_only=True, eq=False)
class InfoBatch(Trained):
    r"""Leave out a random part of the samples whose loss is below the mean, and give the others of these more weight.

    .. math:: p_i = \begin{cases} 1 - r & \ell_i < \bar\ell \\ 1 & \text{else} \end{cases}, \qquad w_i = 1 / p_i

    l_i: the loss when the sample was last trained; a sample that never was is kept. With the weights w the expected
    gradient is that of all candidates.

    Parameters
    ----------
    prune
        r in [0, 1): the probability that a sample of low loss is left out.
    seed
        Seed of the draws.

    Notes
    -----
    No forward pass: losses come from the training pass. In the first epoch all samples are kept. It takes no budget;
    one sample of a pool is always kept. The last epochs should train on all samples: end the selection by a schedule.
    The source prunes whole epochs, whose loader it owns; here each batch is pruned. The state is 12 bytes for each
    sample seen. Needs `ids`. Source: Qin et al., arXiv 2303.04947.
    """

    prune: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _options.number("prune", self.prune, "in [0, 1)", fits=lambda r: 0 <= r < 1)
        _options.seed(self.seed)

    @property
    def needs(self) -> Needs:
        """Ids and the training pass."""
        return training_needs(budget=False, weights=True)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `length` (batch,) and `id` (batch,)."""
        return {"length": candidates.lengths(), "id": candidates.identity()}

    def init(self, features: Features, /) -> PrunedLosses:
        """Return an empty state."""
        return PrunedLosses(Ledger.empty(), nobody(), 0)

    def enter_losses(self, state: PrunedLosses, ids: Ids, losses: Ids, /) -> PrunedLosses:
        """Return the state with the latest losses."""
        return state._replace(losses=state.losses.enter(ids, losses))

    def choose(
        self, state: PrunedLosses | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, PrunedLosses]:
        """Leave samples out at random; scores are p_i / u_i, u_i uniform in (0, 1], at least 1 where kept."""
        state = self.init(features) if state is None else state
        host = Scored.of(features, features["length"], groups=groups, id=features["id"])
        ids = host.host["id"]
        known = state.losses.values
        losses = state.losses.look_up(ids)
        mean = known.mean(dtype=np.float64) if len(known) else 0.0
        low = losses < mean  # False where it is not known
        probability = np.where(low, 1.0 - float(self.prune), 1.0)
        accepted = np.where(host.length > 0, probability, 0.0)
        generator: Any = _random.generator(self.seed, Stream.RANDOM, state.step)
        uniform = 1.0 - generator.random(len(ids))
        scored = host.rescored(accepted / uniform, parts={"probability": probability})
        number = max(int((accepted >= uniform).sum()), 1)
        kept = top_k(scored.numbers, scored.length, budget=Budget(count=number))
        selection = scored.selection(kept, (1.0 / probability[kept]).astype(scored.numbers.dtype))
        awaited = after_choice(state.awaited, ids, selection)
        return selection, PrunedLosses(state.losses, awaited, state.step + 1)
