"""The protocol of policies: examine candidates one micro-batch at a time, then choose from the whole pool."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ._array import Array
from .candidates import Candidates, Features, Selection


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Inputs that a policy needs from its adapter.

    Parameters
    ----------
    logits
        Whether `Candidates.logits` are read: False where lengths are enough, so that no forward pass is needed.
    layers
        Numbers of the decoder layers whose output is read with `Candidates.layer`, counted from 0; negative ones from
        the end.
    whole_batch
        Whether features depend on how far the whole batch is padded, so that a batch is never scored in parts.
    ids
        Whether `Candidates.ids` are read.
    columns
        Entries of a batch, one number for each sample, that are read with `Candidates.column`.
    budget
        Whether a budget must be given: False for a policy that keeps as many samples as it finds worth training on.
    glance
        Whether `Candidates.glance` is read.
    ngrams
        Whether `Candidates.ngrams` are read.
    ngram_counts
        Whether `Candidates.ngram_counts` are read.
    scored_choices
        Number of first choices whose candidates run through the model; None: all.
    training_pass
        Whether the chosen samples are measured while they are trained: `Policy` then has the methods of `Learning`.
    shortlist
        Whether only candidates of a shortlist run through the model: `Policy` then has the methods of `Shortlisting`.
    weights
        Whether selections have importance weights, which the loss must be multiplied by (`Selection.weights`).
    row_means
        Whether each feature is a mean over scored rows, so that a few of a sample's rows estimate it.
    divisible
        Whether the policy has the method of `Divisible`, by which processes divide the work of a choice.
    """

    logits: bool = True
    layers: tuple[int, ...] = ()
    whole_batch: bool = False
    ids: bool = False
    columns: tuple[str, ...] = ()
    budget: bool = True
    glance: bool = False
    ngrams: bool = False
    ngram_counts: bool = False
    scored_choices: int | None = None
    training_pass: bool = False
    shortlist: bool = False
    weights: bool = False
    row_means: bool = False
    divisible: bool = False

    @property
    def forward_pass(self) -> bool:
        """Whether the model must run on candidates, be it on the first ones only."""
        return self.logits or bool(self.layers)

    def forward_pass_at(self, choice: int, /) -> bool:
        """Return whether the model must run on the candidates of a choice, counted from 0."""
        return self.forward_pass and (self.scored_choices is None or choice < self.scored_choices)


@runtime_checkable
class Policy(Protocol):
    """A rule for choosing samples: an immutable value of options. What changes is in the state that it is handed."""

    @property
    def needs(self) -> Needs:
        """Inputs that the adapter must provide; a class attribute where no option changes it."""
        ...

    def examine(self, candidates: Candidates, /) -> Features:
        """Return the features of each candidate: stateless, and of no influence on one another."""
        ...

    def init(self, features: Features, /) -> Any:
        """Return the state before the first choice; `features` give library, device and sizes."""
        ...

    def choose(self, state: Any, features: Features, /, *, groups: Array | None = None) -> tuple[Selection, Any]:
        """Choose the best of the pool, or of each of its groups; return the selection and the next state.

        `state` None means `init(features)`.
        """
        ...


@runtime_checkable
class Divisible(Policy, Protocol):
    """A policy whose choice has a part that is computed for some candidates at a time (`Needs.divisible`)."""

    def prepare(self, state: Any, features: Features, rows: slice, /) -> Features:
        """Return further features of the candidates `rows` of a pool, which spare `choose` the work of finding them.

        For whole blocks of candidates, as `pool_part` returns, they are bit for bit those of all candidates at once.
        Empty where there is nothing to divide, whatever `rows`. `state` as of `choose`, and not older.
        """
        ...


@runtime_checkable
class Learning(Policy, Protocol):
    """A policy that learns from the samples that are trained (`Needs.training_pass`)."""

    def measure(self, candidates: Candidates, /) -> Array:
        """Return the exact score (batch,) of trained samples, given as candidates with logits."""
        ...

    def pending(self, state: Any, /) -> int:
        """Return the number of chosen samples whose exact scores are awaited."""
        ...

    def learn(self, state: Any, scores: Array, /) -> Any:
        """Return the state after the exact scores of the samples chosen since the last call, NaN for unknown ones."""
        ...


@runtime_checkable
class Shortlisting(Policy, Protocol):
    """A policy that examines a shortlist of its candidates (`Needs.shortlist`)."""

    def shortlist(self, state: Any, features: Features, /) -> Features:
        """Return the features of candidates without logits, and `shortlist` (batch,): 0 for those not to examine."""
        ...

    def measure(self, candidates: Candidates, /) -> Array:
        """Return the exact score (batch,) of the shortlist, given as candidates with logits: the feature `exact`."""
        ...
