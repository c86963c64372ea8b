"""Scoring passes: policy features from forward passes without gradients."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch

import uds_core as uds

from .. import batches
from . import models
from .compiled import CompiledExamine, examined
from .depth import Depth
from .glances import TokenReader
from .head_probe import HeadProbe, evaluating, outside_autocast, undisturbed
from .heads import After, HeadReader, capped
from .host_copies import HostCopies
from .layer_probe import LayerProbe
from .layouts import Layouts
from .prepared_head import HEAD_TOLERANCE

__all__ = ["HEAD_TOLERANCE", "HeadProbe", "Scorer", "evaluating", "examined", "outside_autocast"]

_DENSE_BYTES = 256 * 2**20  # for materialised logits, unless those of one sample need more


class Scorer:
    """Compute features with a model, from the hidden states at its head, which is verified in every step.

    Parameters
    ----------
    model
        A causal or encoder-decoder language model with `get_output_embeddings`, bare or in a wrapper (PEFT, DDP,
        DataParallel, `torch.compile`).
    softcap
        Of models that cap their logits (Gemma 2): ``"exact"`` scores the capped logits, computed from the hidden
        states for some samples at a time; ``"ignore"`` scores the logits before the cap, which are never made.
    score_batch_size
        Samples in one forward pass; None: all at once. Halved, with a warning, each time memory runs out.
    head_tolerance
        How far a head that trains may move, relatively, before what norms and sketches derive from it is computed
        again; 0.0: in each call. See `PreparedHead`.
    compile
        Whether a policy's features come from a graph of `torch.compile`, with fewer kernels: an option where starting
        kernels takes long beside their work. The first batches take seconds to minutes more. Without a compiler, as
        without the option, with one warning. The model itself is not compiled.
    depth
        How many decoder layers run: the model's last norm and its head follow directly, and a pass costs about
        ``depth / layers`` of a whole one. None: all. For near-duplicates; other scores differ much from those at full
        depth: see the page "Score at a layer". Verified in every pass by counting the layers' calls.

    Attributes
    ----------
    layouts
        The layout of the model's batches: `batches.view` takes that of a batch, ``layouts.of(batch)``.

    Raises
    ------
    TypeError, ValueError
        If the model has no output embeddings, or an option is not valid.

    Notes
    -----
    A pass runs in evaluation mode, without gradients, cache, labels or a change to global random generators. The head
    runs at one position only, so full logits are not made. If no known form explains the logits at that position, a
    second pass makes all of them, with one warning. A frozen head is prepared once, one that trains when it has moved.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        softcap: Literal["exact", "ignore"] = "exact",
        score_batch_size: int | None = None,
        head_tolerance: float = HEAD_TOLERANCE,
        compile: bool = False,  # noqa: A002 - as `torch.compile`
        depth: int | None = None,
    ) -> None:
        if softcap not in ("exact", "ignore"):
            msg = f"`softcap` must be 'exact' or 'ignore', got {softcap!r}"
            raise ValueError(msg)
        if score_batch_size is not None and score_batch_size < 1:
            msg = f"`score_batch_size` must be a positive number of samples, or None for all, got {score_batch_size}"
            raise ValueError(msg)
        self.model, self.softcap, self.score_batch_size = model, softcap, score_batch_size
        self.head_tolerance, self._examine = head_tolerance, CompiledExamine() if compile else examined
        self._bare = models.bare(model)
        models.check_known(self._bare)
        self._reader, self.copies = HeadReader(models.head_module(self._bare), self._bare, head_tolerance), HostCopies()
        self._reader.copies = self.copies
        self.layouts = Layouts(model)
        self._depth = None if depth is None else Depth(self._bare, depth)
        self._is_fresh = False
        self._warned: set[str] = set()
        self._refused: set[str] = set()

    def examine(self, samples: batches.SampleView, policy: uds.Policy) -> uds.Features:
        """Return the policy's features of all samples, in order."""
        check_whole(policy, self.score_batch_size)
        if self._depth is not None:
            self._depth.check_needs(policy)
        self._refresh()
        with undisturbed(self.model):
            return uds.pool(list(self._pieces(samples, policy)))

    @contextlib.contextmanager
    def same_weights(self) -> Iterator[None]:
        """Score several batches with the weights as they are: the head is verified in the first pass."""
        self._refresh()
        self._is_fresh = True
        try:
            yield
        finally:
            self._is_fresh = False

    def __call__(self, batch: Mapping[str, Any], /) -> uds.Candidates:
        """Return the candidates of a batch in one piece, without a memory limit."""
        samples = self.view(batch)
        self._refresh()
        with undisturbed(self.model):
            return next(self._candidates(samples, dense_bytes=sys.maxsize))

    def view(self, batch: Mapping[str, Any], /, **options: Any) -> batches.SampleView:
        """Return the samples of a batch of this model; `options`: others of `batches.view`."""
        return batches.view(batch, layout=self.layouts.of(batch), **options)

    @property
    def depth(self) -> int | None:
        """How many decoder layers run; None: all."""
        return None if self._depth is None else self._depth.layers

    @property
    def head(self) -> torch.nn.Module:
        """The module that computes logits."""
        return self._reader.module

    def transformation(self, samples: batches.SampleView) -> tuple[After, int, torch.Tensor] | None:
        """Return what the model does to its head's output, the size of its vocabulary, and the head's input.

        From a pass of its own; None where the head is not seen, or nothing known explains the logits.
        """
        self._refresh()
        inputs = models.inputs_for(self._bare, samples.inputs, samples.labels)
        with undisturbed(self.model), HeadProbe(self._reader.module, self._reader.linear) as probe:
            logits = self._forward(inputs)
        after = None if probe.hidden is None else self._reader.after(probe.result, logits)
        return None if after is None or probe.hidden is None else (after, logits.shape[-1], probe.hidden)

    def head_at(self, last: torch.Tensor, after: After, vocab: int) -> uds.Head:
        """Return the head as it is now, prepared for several uses; `last` (batch, 1, width) goes into it."""
        self._refresh()
        linear = self._reader.linear(last)
        head = self._reader.head(linear, after, vocab, reuse=False)
        return uds.Head(head.weight, head.bias, head.scale)

    def refresh_head(self) -> None:
        """Prepare a head that trains anew in the next pass; at a checkpoint, so that a resumed run does the same."""
        self._reader.prepared.clear()

    def pieces(self, samples: batches.SampleView, through: Any, cap: float | None) -> Iterator[uds.Candidates]:
        """Yield candidates through a head: some samples at a time where logits must be made and capped."""
        return self._pieces_of(samples, through, cap, {})

    def _refresh(self) -> None:
        """Discard what is known of a head that trains, or that was replaced, as `resize_token_embeddings` does."""
        if self._is_fresh:
            return
        head = models.head_module(self._bare)
        if head is not self._reader.module:
            self._reader = HeadReader(head, self._bare, self.head_tolerance)
            self._reader.copies = self.copies
        self._reader.refresh()

    def _pieces(self, samples: batches.SampleView, policy: uds.Policy) -> Iterator[uds.Features]:
        """Yield features, one micro-batch at a time."""
        waiting = [samples]
        while waiting:
            piece = waiting.pop()
            size = self.score_batch_size or len(piece)
            if len(piece) > size:
                waiting += reversed(piece.split(size))
                continue
            try:
                features = self._features(piece, policy)
            except (RuntimeError, MemoryError) as error:
                whole = len(piece) == 1 or policy.needs.whole_batch
                if whole or not _is_out_of_memory(error):
                    raise
                features = None
            if features is None:  # outside the handler, where the error would hold the tensors of the failed pass
                self._halve_batch_size(len(piece))
                waiting.append(piece)
            else:
                yield uds.pool(features)

    def _features(self, piece: batches.SampleView, policy: uds.Policy) -> list[uds.Features]:
        """Return the features of one forward pass."""
        return self._examined(self._candidates(piece, _DENSE_BYTES, policy.needs.layers), piece, policy)

    def _examined(
        self, parts: Iterator[uds.Candidates], samples: batches.SampleView, policy: uds.Policy
    ) -> list[uds.Features]:
        """Return the features of candidates that are some of `samples` at a time, in order."""
        read = TokenReader(self._bare, policy.needs)(samples)
        features, first = [], 0
        for candidates in parts:
            last = first + candidates.shape[0]
            known = {name: rows[first:last].to(candidates.like.device) for name, rows in read.items()}
            features.append(self._examine(candidates.with_tokens(**known), policy))
            first = last
        return features

    def _halve_batch_size(self, size: int) -> None:
        self.score_batch_size = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._warn(
            "too little memory to score that many samples at once: the scoring batch size is halved, and again if it "
            "is still too large. Set `score_batch_size` to avoid failed attempts"
        )

    def _candidates(
        self, samples: batches.SampleView, dense_bytes: int, layers: tuple[int, ...] = ()
    ) -> Iterator[uds.Candidates]:
        """Yield candidates of one forward pass; some samples at a time if logits must be made and capped."""
        if self._depth is not None and len(samples):
            one = samples.split(1)[0]
            first = models.inputs_for(self._bare, one.inputs, one.labels)
            self._depth.verify(lambda: models.run(self.model, first, refused=self._refused))
        inputs = models.inputs_for(self._bare, samples.inputs, samples.labels)
        with (
            HeadProbe(self._reader.module, self._reader.linear) as probe,
            LayerProbe(self._bare, layers) as layer_probe,
        ):
            logits = self._forward(inputs)
        states = {number: samples.arrange(output) for number, output in layer_probe.states.items()}
        explained = None if probe.hidden is None else self._reader.explain(probe.result, logits)
        if explained is None or probe.hidden is None:
            logits = self._all_logits(probe, logits, inputs)
            yield _of(samples, samples.arrange(logits), states)
            return
        through = explained.head(samples.arrange(probe.hidden))
        yield from self._pieces_of(samples, through, explained.cap, states, dense_bytes)

    def _pieces_of(
        self,
        samples: batches.SampleView,
        through: Any,
        cap: float | None,
        states: Mapping[int, torch.Tensor],
        dense_bytes: int = _DENSE_BYTES,
    ) -> Iterator[uds.Candidates]:
        """Yield candidates through a head, in one piece; some at a time if logits must be made and capped."""
        if cap is None or self.softcap == "ignore":
            yield _of(samples, through, states)
            return
        self._warn(
            "the model soft-caps its logits, so they are made, for some samples at a time; softcap='ignore' scores "
            "them before the cap, which is faster"
        )
        number, time, vocab = through.shape
        size = max(1, dense_bytes // (4 * time * vocab))
        for start in range(0, number, size):
            part = slice(start, start + size)
            yield _of(samples, _capped(through.samples(start, min(start + size, number)), cap), states, part)

    def _forward(self, inputs: dict[str, Any]) -> torch.Tensor:
        with contextlib.nullcontext() if self._depth is None else self._depth.applied():
            return models.logits_of(models.run(self.model, inputs, refused=self._refused))

    def _all_logits(self, probe: HeadProbe, logits: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the model's full logits, and warn with the reason."""
        if not probe.calls:
            reason = "the head's hook did not run (is a part of the model compiled that has the head in it?)"
        elif probe.hidden is None:
            reason = "the head is given something else than hidden states (batch, time, width), once"
        elif probe.result.weight is None:
            reason = "the head is not linear (does it quantise what goes in?)"
        else:
            reason = "nothing known explains what the model does to its head's output"
        self._warn(f"{reason}: scores come from the full logits, which are right but slower and need their memory")
        return self._forward(inputs) if probe.cut else logits

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=2)


def _of(
    samples: batches.SampleView, logits: Any, states: Mapping[int, torch.Tensor], part: slice = slice(None)
) -> uds.Candidates:
    """Return candidates for some of the samples, on the device of their logits."""
    device = logits.device if isinstance(logits, torch.Tensor) else logits.like.device
    mask, labels = (None if x is None else x[part].to(device) for x in (samples.mask, samples.labels))
    beside: dict[str, Any] = {name: numbers[part] for name, numbers in samples.beside.items()}
    layers = {number: output[part].to(device) for number, output in states.items()}
    return uds.Candidates(logits, mask=mask, labels=labels, layers=layers, ids=beside.pop("id", None), **beside)


def check_whole(policy: uds.Policy, score_batch_size: int | None) -> None:
    """Raise an error if a policy that scores padding would get a batch in parts.

    Raises
    ------
    ValueError
        If `score_batch_size` is given and the policy needs whole batches.
    """
    if score_batch_size is not None and policy.needs.whole_batch:
        msg = (
            f"`score_batch_size` is {score_batch_size}, and {type(policy).__name__} scores the padding of the whole "
            "batch, which parts of it do not have: leave it None, with fewer candidates if memory is short"
        )
        raise ValueError(msg)


def _capped(logits: Any, cap: float) -> torch.Tensor:
    """Return capped logits, computed in blocks of the vocabulary."""
    values = torch.empty(logits.shape, dtype=logits.dtype, device=logits.like.device)
    with outside_autocast(values):
        for start, block in logits.blocks():
            values[..., start : start + block.shape[2]] = capped(block, cap)
    return values


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)
