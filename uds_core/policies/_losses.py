"""Losses of candidates: computed now, or recorded before."""

from typing import Literal

from .. import _options
from .._array import Array, constant
from ..candidates import Candidates
from ..ledger import Ledger
from ..losses import cross_entropy


def required_labels(candidates: Candidates, policy: object, /) -> Array:
    """Return the labels (batch, time), or raise an error that names `policy`."""
    if candidates.labels is None:
        msg = f"{type(policy).__name__} needs `labels`, and the candidates came without them"
        raise ValueError(msg)
    return candidates.labels


def token_loss(
    candidates: Candidates,
    policy: object,
    /,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    vocabulary: int | None = None,
    seed: int = 0,
) -> Array:
    """Return the cross-entropy (batch,) of the scored rows, or raise an error that names `policy`."""
    labels = required_labels(candidates, policy)
    return cross_entropy(
        candidates.logits, labels, mask=candidates.mask, reduction=reduction, vocabulary=vocabulary, seed=seed
    )


def recorded_loss(candidates: Candidates, source: str | Ledger, name: str, /) -> Array:
    """Return losses (batch,) measured before: the candidates' column `name`, or the entries of a ledger."""
    if isinstance(source, str):
        return candidates.column(name)
    ids = candidates.identity_on_host()
    losses = source.look_up(ids)
    missing = ids[losses != losses]  # noqa: PLR0124 - NaN
    if missing.size:
        msg = f"the ledger has no {name} for {missing.size} of {ids.size} samples, such as {missing[0]}: measure them"
        raise ValueError(msg)
    return constant(losses, like=candidates.like)


def check_source(name: str, source: object, words: tuple[str, ...], /) -> None:
    """Raise where an option is neither one of `words` nor a ledger."""
    expected = f"{' or '.join(map(repr, words))} or a Ledger"
    _options.check(name, source, expected, kind=(str, Ledger), fits=lambda s: isinstance(s, Ledger) or s in words)
