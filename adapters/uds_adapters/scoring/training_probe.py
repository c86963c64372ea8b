"""Exact scores of trained samples, measured at the LM head during the training pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

import uds_core as uds

from .. import batches
from ..batches.entries import tokens
from . import models
from .head_probe import outside_autocast
from .heads import After
from .scorer import Scorer

__all__ = ["TrainingProbe"]

_LOGITS = 2**21  # of one sample, that are measured where a few of its rows are enough
_FEWEST_ROWS = 8
_EVERY = 10  # steps between two exact passes where the head is not seen
_REUSES = 50  # measurements with one preparation of a head that trains


class TrainingProbe:
    """Measure the samples that a policy chose while they are trained, without another pass and without a change.

    Parameters
    ----------
    model
        The model in training, as the loop calls it.
    policy
        A policy with `Needs.training_pass`.
    scorer
        Scores with the same model; it knows the head.

    Attributes
    ----------
    scores
        (pending,) exact scores of the samples in the order in which they were chosen; NaN where unknown.

    Notes
    -----
    Hooks are set when batches are expected, and removed in the pass of the last of them. The output of the head is read
    where a few rows of a sample are enough (`Needs.row_means`), else its input. A sample whose batch does not reach the
    head stays unknown. Where no batch does (a fused loss that reads the head's weight, a compiled model), the chosen
    samples of every tenth step are scored by a pass of their own, with one warning.
    """

    def __init__(self, model: torch.nn.Module, policy: Any, scorer: Scorer) -> None:
        self.policy, self._scorer = policy, scorer
        self._bare = models.bare(model)
        self._compiled = models.is_compiled(model)
        self.scores = torch.zeros(0)
        self._expected: list[_Expected] = []
        self._current: _Expected | None = None
        self._hooks: list[Any] = []
        self._after: tuple[After, int] | None = None
        self._prepared: tuple[uds.Head, int] | None = None
        self._unseen = self._unmeasured = self._warned = False
        self._steps = 0

    def expect(self, trained: Sequence[Expected], number: int) -> None:
        """Expect batches in the next training passes; `number`: samples chosen since the last call, on all ranks."""
        self.scores = torch.cat([self.scores, torch.full((number,), torch.nan)])
        expected = [one for one in trained if int(one.places.max()) >= 0]
        if not expected:
            return
        first = batches.view(expected[0].batch, shift=self._scorer.shift).split(1)[0]
        if self._after is None and not self._compiled:
            self._after = self._scorer.transformation(first)
            self._compiled = self._after is None
        if self._compiled or self._unseen:
            self._score(expected)
        if not self._compiled:
            self._expected += expected
            self._unmeasured = True
            self._set_hooks()

    def collect(self) -> torch.Tensor:
        """Return `scores`, and forget them and what was expected."""
        if self._expected:
            self._unseen = self._unmeasured
        self._expected, self._current = [], None
        self._remove_hooks()
        scores, self.scores = self.scores, torch.zeros(0)
        return scores

    def refresh(self) -> None:
        """Prepare a head that trains anew; at a checkpoint, so that a resumed run does the same."""
        self._prepared = None

    def _set_hooks(self) -> None:
        if self._hooks:
            return
        head = self._scorer.head
        at_head = (
            head.register_forward_hook(self._on_output)
            if self.policy.needs.row_means
            else head.register_forward_pre_hook(self._on_input, with_kwargs=True)
        )
        self._hooks = [self._bare.register_forward_pre_hook(self._on_batch, with_kwargs=True), at_head]

    def _remove_hooks(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _on_batch(self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            ids = kwargs.get("input_ids", args[0] if args else None)
            self._current = next((one for one in self._expected if _is_same(ids, one.batch)), None)

    def _on_output(self, _module: torch.nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if (expected := self._taken(output)) is not None:
            self._measure_rows(expected, output.detach())

    def _on_input(self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else next(iter(kwargs.values()), None)
        if (expected := self._taken(hidden)) is not None:
            self._measure_hidden(expected, hidden.detach())

    def _taken(self, rows: Any) -> Expected | None:
        """Return the batch whose rows reach the head, and expect it no longer; None where it is not known which."""
        current, self._current = self._current, None
        if current is None or not isinstance(rows, torch.Tensor) or rows.ndim != 3:
            return None
        read = tokens(current.batch).shape
        if rows.shape[0] != read[0] or (self._scorer.shift and rows.shape[1] < read[1]):
            return None
        self._unmeasured = False
        self._expected = [one for one in self._expected if one is not current]
        if not self._expected:
            self._remove_hooks()
        return current

    def _measure_rows(self, expected: Expected, raw: torch.Tensor) -> None:
        """Measure by the head's output at a few rows of each sample."""
        after, vocab = self._after or (After(), raw.shape[-1])
        samples = self._view(expected)
        with outside_autocast(raw):
            logits, labels = samples.arrange(raw), samples.labels
            rows = torch.ones(logits.shape[:2], dtype=torch.bool, device=raw.device)
            rows = rows if samples.mask is None else rows & samples.mask.to(raw.device)
            if labels is not None:
                labels = labels.to(raw.device)
                rows = rows & (labels != batches.IGNORE)
            index, mask = _some_rows(rows, max(_FEWEST_ROWS, _LOGITS // vocab))
            logits = after(logits.gather(1, index[..., None].expand(-1, -1, logits.shape[2]))[..., :vocab])
            labels = None if labels is None else labels.gather(1, index)
            self._enter(expected, uds.Candidates(logits, mask=mask, labels=labels, **expected.beside))

    def _measure_hidden(self, expected: Expected, hidden: torch.Tensor) -> None:
        """Measure by the head's input."""
        after, vocab = self._after or (After(), 0)
        samples = self._view(expected)
        with outside_autocast(hidden):
            through = self._head(hidden, after, vocab)(samples.arrange(hidden))
            pieces = list(self._scorer.pieces(samples, through, after.cap))
            scores = torch.cat([self.policy.measure(piece.with_extra(**expected.beside)) for piece in pieces])
            self._store(expected, scores)

    def _head(self, hidden: torch.Tensor, after: After, vocab: int) -> uds.Head:
        """Return the head; what is prepared of one that trains serves some measurements."""
        if self._prepared is None or self._prepared[1] >= _REUSES or self._scorer.frozen:
            self._prepared = self._scorer.head_at(hidden[:, -1:], after, vocab), 0
        head, uses = self._prepared
        self._prepared = head, uses + 1
        return head

    def _score(self, expected: Sequence[Expected]) -> None:
        """Score the samples of some steps by a pass of their own."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the LM head of {type(self._bare).__name__} is not seen in the training pass (a fused loss reads its "
                f"weight, or the model is compiled), so the chosen samples of every {_EVERY}th step are scored by a "
                "pass of their own, whose time is in `scoring_seconds`",
                stacklevel=2,
            )
        self._steps += 1
        if self._steps % _EVERY == 1:
            for one in expected:
                self._store(one, self._scorer.examine(self._view(one), _Measured(self.policy))["exact"])

    def _enter(self, expected: Expected, candidates: uds.Candidates) -> None:
        self._store(expected, self.policy.measure(candidates))

    def _store(self, expected: Expected, scores: torch.Tensor) -> None:
        known = expected.places >= 0
        self.scores[expected.places[known]] = scores.float().cpu()[known]

    def _view(self, expected: Expected) -> batches.SampleView:
        return batches.view(expected.batch, shift=self._scorer.shift, beside=expected.beside)


class Expected(NamedTuple):
    """A batch that is to be trained."""

    batch: Any
    places: torch.Tensor  # (samples,) among the chosen samples of all processes; -1 for a blank one
    beside: Mapping[str, torch.Tensor]  # what the policy needs beside the model's inputs


class _Measured(NamedTuple):
    """A policy that measures: its features are the exact scores."""

    policy: Any

    @property
    def needs(self) -> uds.Needs:
        return self.policy.needs

    def examine(self, candidates: uds.Candidates) -> uds.Features:
        return {"exact": self.policy.measure(candidates), "length": candidates.lengths()}


def _is_same(ids: Any, batch: Mapping[str, Any]) -> bool:
    """Return whether a forward pass reads this batch; token ids are compared only where they are another tensor."""
    known = tokens(batch)
    if not isinstance(ids, torch.Tensor) or ids.shape != known.shape:
        return False
    return ids.data_ptr() == known.data_ptr() or bool(torch.equal(ids, known.to(ids.device)))


def _some_rows(rows: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return evenly spaced true places of each of `rows` (batch, time): index (batch, most), and which are given."""
    time = rows.shape[1]
    number = rows.sum(1, keepdim=True).clamp(min=1)
    before = rows.cumsum(1)
    wanted = number.clamp(max=most)
    taken = rows & ((before * wanted) // number > ((before - 1) * wanted) // number)
    place = torch.where(taken, torch.arange(time, device=rows.device), time).sort(1).values[:, : min(most, time)]
    return place.clamp(max=max(time - 1, 0)), place < time
