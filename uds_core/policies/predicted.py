"""Predicted scores: those of another policy, learnt from the samples that are trained."""

from dataclasses import dataclass

from ..registry import register
from ._learnt import Learnt


@register("predicted")
@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted(Learnt):
    r"""Keep the samples that another policy would keep, by predicted scores: no forward pass over the candidates.

    .. math:: \hat s_i = \operatorname{ridge}(g_i), \qquad g_i = \operatorname{glance}(\text{tokens}_i)

    The learner is taught the exact scores of the samples that are trained, measured in the training pass itself.

    Parameters
    ----------
    policy
        The policy whose score is predicted, or its text: one whose score is a number for each sample. Of `UDS` the
        utility is predicted, and diversity is taken between glances.
    keep, count, tokens, processed
        The budget; see `Budget`. Default: that of the wrapped policy.
    warmup
        Number of first choices by exact scores, from a forward pass; the learner starts from their whole pools.
    explore
        In [0, 1]: fraction of what is kept that is drawn at random. Their exact scores tell how well predictions rank.
    least_correlation
        Where the rank correlation of predictions and exact scores falls below it, choices are random until it rises.
    forget, penalty
        As of `Learner`.
    seed
        Seed of the random draws.

    Notes
    -----
    A choice costs O(width^3 + batch width), width: that of the glances. Where nobody calls `learn`, only the warm-up
    teaches. Source: this library.
    """
