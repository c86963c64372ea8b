"""Losses of a language model without its full logits, where these would be large."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ... import batches
from ...batches import IGNORE
from ...scoring import models
from ...scoring.head_probe import undisturbed
from ...scoring.heads import After
from ...scoring.scorer import Scorer
from .block_loss import row_losses, summed_loss

__all__ = ["WHOLE", "LogitBlocks"]

WHOLE = 64 * 2**20
"""Bytes of float32 logits that a pass may hold at once: where a batch has no more, the model computes its own loss."""

_TOLERANCE = 1e-3  # relative, of the loss of one sample computed in both ways
_LOSS = "ForCausalLMLoss"


class LogitBlocks:
    """Token losses of a model, in blocks of logits where those of a batch would be larger than `WHOLE`.

    Parameters
    ----------
    model
        A causal language model, bare or with PEFT.

    Notes
    -----
    The model's own forward runs, with its head on no position; the head is then applied, a block at a time, to what
    came in at the positions that have a target. This needs a head that is `torch.nn.Linear`, a known transformation of
    its output, and the loss of causal language models in transformers. The loss of one sample is computed in both ways
    first. Where they differ, and for smaller batches, the model computes its own loss from its own logits.
    """

    def __init__(self, model: Any, /) -> None:
        self._model = model
        self._bare: Any = models.bare(model)
        self._after: After | None = None
        self._checked = False

    @contextlib.contextmanager
    def training(self, batch: Mapping[str, Any], /) -> Iterator[None]:
        """Let the model compute its loss on `batch` in blocks inside, where they are needed."""
        if not self._needed(batch) or not self._known(batch):
            yield
            return
        with self._in_blocks():
            yield

    @torch.no_grad()
    def losses(self, batch: Mapping[str, Any], /) -> torch.Tensor:
        """Return the loss (n,) of each label that is not -100 and not the first of its sample, row by row."""
        inputs = models.inputs_for(self._bare, batch, None)
        targets = batch["labels"][:, 1:]
        scored = targets != IGNORE
        if self._needed(batch) and self._known(batch):
            with _HeadInput(self._head) as head:
                self._model(**inputs)
            assert self._after is not None
            return row_losses(head.input[:, :-1][scored], *self._weights(), targets[scored], self._after)
        logits = self._model(**inputs).logits[:, :-1]
        # the vocabulary is wide: only rows that count are made float32
        return torch.nn.functional.cross_entropy(logits[scored].float(), targets[scored], reduction="none")

    @property
    def _head(self) -> Any:
        return self._bare.get_output_embeddings()

    def _weights(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._head.weight, self._head.bias

    def _needed(self, batch: Mapping[str, Any]) -> bool:
        find = getattr(self._bare, "get_output_embeddings", None)
        vocab = getattr(find() if callable(find) else None, "out_features", 0)
        return 4 * vocab * batch["labels"].numel() > WHOLE

    def _known(self, batch: Mapping[str, Any]) -> bool:
        """Return whether losses in blocks are the model's own; determined once."""
        if not self._checked:
            self._checked = True
            try:
                self._after = self._transformation(batch)
                if self._after is not None and not self._agrees(batch):
                    self._after = None
            except (TypeError, ValueError, RuntimeError):  # the model does not run without logits
                self._after = None
        return self._after is not None

    def _transformation(self, batch: Mapping[str, Any]) -> After | None:
        """Return what the model does to its head's output; None where it, or the model's loss, is not known."""
        head, loss = self._head, getattr(self._bare, "loss_function", None)
        if type(head) is not torch.nn.Linear or "forward" in vars(head) or getattr(loss, "__name__", "") != _LOSS:
            return None
        known = Scorer(self._model).transformation(batches.view(_longest(batch)))
        return None if known is None or known[1] != head.out_features else known[0]

    def _agrees(self, batch: Mapping[str, Any]) -> bool:
        """Return whether the loss of one sample is the same in blocks."""
        one = _longest(batch)
        inputs = {**models.inputs_for(self._bare, one, None), "labels": one["labels"]}
        with undisturbed(self._model):
            expected = self._model(**inputs).loss
            with self._in_blocks() as used:
                got = self._model(**inputs).loss
        close = (got - expected).abs() <= _TOLERANCE * expected.abs().clamp(min=1.0)
        return bool(used) and bool(close)

    @contextlib.contextmanager
    def _in_blocks(self) -> Iterator[list[bool]]:
        """Replace the model's loss function inside; yield a list that has an entry for each of its calls."""
        used: list[bool] = []
        before = vars(self._bare).get("_loss_function")

        def loss(logits: Any, labels: Any, *_: Any, shift_labels: Any = None, **options: Any) -> torch.Tensor:  # noqa: ARG001
            used.append(True)
            return self._loss(head.input, labels, shift_labels, options.get("num_items_in_batch"))

        with _HeadInput(self._head) as head:
            self._bare._loss_function = loss
            try:
                yield used
            finally:
                del self._bare._loss_function
                if before is not None:
                    self._bare._loss_function = before

    def _loss(self, hidden: torch.Tensor, labels: Any, shifted: Any, number: Any) -> torch.Tensor:
        """Return the loss, as transformers defines it for causal language models."""
        targets = torch.nn.functional.pad(labels, (0, 1), value=IGNORE)[:, 1:] if shifted is None else shifted
        targets = targets.to(hidden.device)
        scored = targets != IGNORE
        assert self._after is not None
        total = summed_loss(hidden[scored], *self._weights(), targets[scored], self._after)
        return total / (scored.sum() if number is None else torch.as_tensor(number, device=total.device))


class _HeadInput:
    """Store what goes into the head, and run the head on no position, while entered."""

    def __init__(self, head: torch.nn.Module) -> None:
        self._head = head
        self.input: Any = None

    def __enter__(self) -> _HeadInput:
        self._hook = self._head.register_forward_pre_hook(self._on_input, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _on_input(self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = "" if args else next(iter(kwargs))
        self.input = args[0] if args else kwargs[name]
        nothing = self.input[:, :0]
        return ((nothing, *args[1:]), kwargs) if args else (args, {**kwargs, name: nothing})


def _longest(batch: Mapping[str, Any]) -> Any:
    """Return a batch of the one sample that has most targets."""
    samples = batches.view(batch)
    return samples.take([int(samples.tokens.argmax())])
