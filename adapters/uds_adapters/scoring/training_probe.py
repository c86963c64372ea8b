"""Exact scores of trained samples, measured at the LM head during the training pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

import uds_core as uds

from .. import batches
from ..batches.entries import on_host, tokens
from . import models
from .head_probe import outside_autocast
from .heads import After, capped
from .scorer import Scorer
from .shortlist import Measured

__all__ = ["TrainingProbe"]

_LOGITS = 2**21  # of one sample, that are measured where a few of its rows are enough
_FEWEST_ROWS = 8
_EVERY = 10  # steps between two exact passes where the head is not seen
_REUSES = 50  # measurements with one preparation of the head


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
    measured
        (pending,) exact scores of the samples in the order in which they were chosen; NaN where unknown.

    Notes
    -----
    Hooks are set when batches are expected, and removed in the pass of the last of them. The output of the head is read
    where a few rows of a sample are enough (`Needs.row_means`), else its input. Where a fused loss reads the weight of
    the head, which then does not run, the output of the backbone is read, if it is what goes into the head. Where
    nothing is seen (a compiled model), the chosen samples of every tenth step are scored by a pass of their own, with
    one warning.
    """

    def __init__(self, model: torch.nn.Module, policy: Any, scorer: Scorer) -> None:
        self.policy, self._scorer = policy, scorer
        self._bare = models.bare(model)
        self._compiled = models.is_compiled(model)
        self.measured = torch.zeros(0)
        self._expected: list[_Expected] = []
        self._current: _Expected | None = None
        self._new: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._hooks: list[Any] = []
        self._after: tuple[After, int] | None = None
        self._backbone = _backbone(self._bare)
        self._hidden: torch.Tensor | None = None
        self._prepared: tuple[uds.Head, int] | None = None
        self._unseen = self._warned = False
        self._steps = self._reached = self._at_head = 0

    def expect(
        self, trained: Sequence[tuple[Any, torch.Tensor, Mapping[str, torch.Tensor]]], new: int, pending: int
    ) -> None:
        """Expect batches in the next training passes.

        Parameters
        ----------
        trained
            Batches; the places of their samples among the `new` ones, -1 for others; numbers beside the batch.
        new, pending
            Samples chosen now, and all samples that the policy awaits, of all processes.
        """
        self._enter()
        before = pending - new
        dropped = len(self.measured) - before
        self.measured = torch.cat([torch.full((max(0, -dropped),), torch.nan), self.measured[max(0, dropped) :]])
        self.measured = torch.cat([self.measured, torch.full((new,), torch.nan)])[-pending:]
        self._expected = [one._replace(places=one.places - dropped) for one in self._expected]
        mine = [_Expected(*one) for one in trained if bool((one[1] >= 0).any())]
        mine = [one._replace(places=torch.where(one.places >= 0, one.places + before, -1)) for one in mine]
        if not mine:
            return
        if self._after is None and not self._compiled:
            self._determine_transformation(self._scorer.view(mine[0].batch).split(1)[0])
        if self._compiled or self._unseen:
            self._score(mine)
        if not self._compiled:
            self._expected += mine
            self._set_hooks()

    def collect(self, *, always: bool) -> torch.Tensor | None:
        """Return `measured` and forget it; None, unless `always`, while expected batches were not trained."""
        if self._expected and not always:
            return None
        self._enter()
        if self._reached:
            self._unseen = not self._at_head
        self._reached, self._at_head, self._expected, self._current = 0, 0, [], None
        self._remove_hooks()
        scores, self.measured = self.measured, torch.zeros(0)
        return scores

    def refresh_head(self) -> None:
        """Prepare a head that trains anew; at a checkpoint, so that a resumed run does the same."""
        self._prepared = None

    def _determine_transformation(self, one: batches.SampleView) -> None:
        hook = None if self._backbone is None else self._backbone.register_forward_hook(self._on_backbone)
        try:
            known = self._scorer.transformation(one)
        finally:
            if hook is not None:
                hook.remove()
        hidden, self._hidden = self._hidden, None
        if known is None:
            self._compiled = True
            return
        self._after = known[:2]
        if hidden is None or not torch.equal(hidden, known[2]):
            self._backbone = None

    def _set_hooks(self) -> None:
        if self._hooks:
            return
        head = self._scorer.head
        at_head = (
            head.register_forward_hook(self._on_output)
            if self.policy.needs.row_means
            else head.register_forward_pre_hook(self._on_input, with_kwargs=True)
        )
        around = (
            self._bare.register_forward_pre_hook(self._on_batch, with_kwargs=True),
            self._bare.register_forward_hook(self._on_end),
        )
        self._hooks = [*around, at_head]
        if self._backbone is not None:
            self._hooks.append(self._backbone.register_forward_hook(self._on_backbone))

    def _remove_hooks(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _on_batch(self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Find the batch that is trained, and expect it and those before it no longer."""
        if not torch.is_grad_enabled():
            return
        ids = kwargs.get("input_ids", args[0] if args else None)
        number = next((i for i, one in enumerate(self._expected) if _is_same(ids, one.batch)), None)
        if number is not None:
            self._reached += 1
            self._current, self._expected = self._expected[number], self._expected[number + 1 :]

    def _on_backbone(self, _module: torch.nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        hidden = getattr(output, "last_hidden_state", output[0] if isinstance(output, tuple) else output)
        self._hidden = hidden.detach() if isinstance(hidden, torch.Tensor) else None

    def _on_output(self, _module: torch.nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if (expected := self._taken(output)) is not None:
            self._measure_logits(expected, output.detach())

    def _on_input(self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden: Any = args[0] if args else next(iter(kwargs.values()), None)
        if (expected := self._taken(hidden)) is not None:
            self._measure_hidden(expected, hidden.detach())

    def _on_end(self, _module: torch.nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        """Measure a batch whose rows have not reached the head."""
        if (hidden := self._hidden) is not None and (expected := self._taken(hidden)) is not None:
            self._measure_hidden(expected, hidden)
        self._current = self._hidden = None
        if not self._expected:
            self._remove_hooks()

    def _taken(self, rows: Any) -> _Expected | None:
        """Return the batch whose rows these are; None where it is not known which, or some are missing."""
        current = self._current
        if current is None or not torch.is_grad_enabled() or not isinstance(rows, torch.Tensor) or rows.ndim != 3:
            return None
        read = tokens(current.batch).shape
        if rows.shape[0] != read[0] or (not self._scorer.layouts.of(current.batch).decoder and rows.shape[1] < read[1]):
            return None
        self._at_head += 1
        self._current = None
        return current

    def _measure_logits(self, expected: _Expected, raw: torch.Tensor) -> None:
        """Measure by the head's output at a few rows of each sample."""
        after, vocab = self._after or (After(), raw.shape[-1])
        with outside_autocast(raw):
            logits, given = self._rows_of(expected, raw, vocab)
            self._store(expected, self.policy.measure(uds.Candidates(after(logits[..., :vocab]), **given)))

    def _measure_hidden(self, expected: _Expected, hidden: torch.Tensor) -> None:
        """Measure by the head's input."""
        after, vocab = self._after or (After(), 0)
        with outside_autocast(hidden):
            head = self._head(hidden, after, vocab)
            if self.policy.needs.row_means:
                rows, given = self._rows_of(expected, hidden, vocab)
                raw = torch.cat([block for _, block in head(rows).blocks()], 2)
                logits = raw if after.cap is None else capped(raw, after.cap)
                self._store(expected, self.policy.measure(uds.Candidates(logits, **given)))
                return
            samples = self._view(expected)
            pieces = self._scorer.pieces(samples, head(samples.arrange(hidden)), after.cap)
            self._store(expected, torch.cat([self.policy.measure(piece) for piece in pieces]))

    def _rows_of(self, expected: _Expected, x: torch.Tensor, vocab: int) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return `x` at a few rows of each sample (batch, rows, width), and the arguments of its candidates."""
        samples = self._view(expected)
        x, labels = samples.arrange(x), samples.labels
        rows = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        rows = rows if samples.mask is None else rows & samples.mask.to(x.device)
        if labels is not None:
            labels = labels.to(x.device)
            rows = rows & (labels != batches.IGNORE)
        index, mask = _some_rows(rows, max(_FEWEST_ROWS, _LOGITS // vocab))
        given: dict[str, Any] = {**expected.beside, "mask": mask}
        if "id" in given:
            given["ids"] = given.pop("id")
        given["labels"] = None if labels is None else labels.gather(1, index)
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[2])), given

    def _head(self, hidden: torch.Tensor, after: After, vocab: int) -> uds.Head:
        """Return the head; what is prepared of it serves some measurements, also while it trains."""
        if self._prepared is None or self._prepared[1] >= _REUSES:
            self._prepared = self._scorer.head_at(hidden[:, -1:], after, vocab), 0
        head, uses = self._prepared
        self._prepared = head, uses + 1
        return head

    def _score(self, expected: Sequence[_Expected]) -> None:
        """Score the samples of some steps by a pass of their own."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"what goes into the LM head of {type(self._bare).__name__} is not seen in the training pass (is the "
                f"model compiled?), so the chosen samples of every {_EVERY}th step are scored by a pass of their own, "
                "whose time is in `scoring_seconds`",
                stacklevel=2,
            )
        self._steps += 1
        if self._steps % _EVERY == 1:
            measured: Any = Measured(self.policy)
            for one in expected:
                self._store(one, self._scorer.examine(self._view(one), measured)["exact"])

    def _store(self, expected: _Expected, scores: torch.Tensor) -> None:
        self._new.append((expected.places, scores.detach().float()))  # moved later: the device need not be waited for

    def unread(self) -> dict[str, torch.Tensor]:
        """Return the new scores, on their device."""
        return {str(number): scores for number, (_, scores) in enumerate(self._new)}

    def bring(self, values: Mapping[str, torch.Tensor], /) -> None:
        """Take what `unread` named, on the host."""
        self._new = [(places, values[str(number)]) for number, (places, _) in enumerate(self._new)]

    def _enter(self) -> None:
        """Write the new scores into `measured`."""
        self.bring(on_host(self.unread()))
        for places, scores in self._new:
            known = places >= 0
            self.measured[places[known]] = scores[known]
        self._new = []

    def _view(self, expected: _Expected) -> batches.SampleView:
        return self._scorer.view(expected.batch, beside=expected.beside)


class _Expected(NamedTuple):
    """A batch that is to be trained."""

    batch: Any
    places: torch.Tensor  # (samples,) among those awaited, of all processes; negative for others
    beside: Mapping[str, torch.Tensor]  # what the policy needs beside the model's inputs


def _backbone(model: torch.nn.Module) -> torch.nn.Module | None:
    """Return the part of the model whose output goes into the head; None where it is not known."""
    find = getattr(model, "get_decoder", None)
    found = find() if callable(find) else None
    found = getattr(model, "base_model", None) if found is None or found is model else found
    return found if isinstance(found, torch.nn.Module) and found is not model else None


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
