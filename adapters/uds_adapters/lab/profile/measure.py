"""Seconds and memory of the parts of a training step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any, NamedTuple

import torch
import transformers

import uds_core as uds

from ...torch import BatchSelector
from ..data.candidate_order import CandidateOrder
from ..errors import LabError
from ..evaluation.heldout import Likelihood
from ..models import load_model, with_lora
from ..policy_spec import make_policy, parse
from ..system import peak
from ..training.passes import TrainingPasses
from ..training.recording_trainer import Clock
from ..training.settings import Settings
from ..training.task import Task
from .cost_model import Prediction, StepCost

__all__ = ["KEEPS", "PeakMemory", "Phases"]

KEEPS = (0.125, 0.25, 0.5)
_DRAWN = 64  # batches whose lengths stand for those of the data
_CLIP = 1.0  # the Trainer's `max_grad_norm`
_EVALUATED = 16  # samples in a pass of `HeldOut`


class PeakMemory(NamedTuple):
    """The peak of one phase; see `peak`."""

    phase: str  # scoring, training or evaluation
    samples: int
    bytes: int | None


class _Case(NamedTuple):
    """Batches that represent the steps of one number of candidates."""

    batches: list[list[int]]  # from short to long
    longest: list[int]  # the batch of most padded tokens
    padded: float  # tokens of such a batch on average, padding included
    random: dict[int, float]  # padded tokens of a random subset, by size


class Phases:
    """Measures the parts of a training step of one model.

    The weights stay as they are: the optimizer does its work with a learning rate of 0. What the Trainer does around a
    step, some milliseconds, is left out, as is the growth of a memory that is still empty.

    Parameters
    ----------
    task
        Model and data; the candidates come as in training, of real lengths.
    settings
        How it is trained; `keep` and `batch_size` are not used.
    policy
        A policy specification, without an option that says how much is kept.
    seed
        Of the candidates' order, the adapters and the policy.

    Raises
    ------
    LabError
        Where the policy says how much is kept, has importance weights, or is none.
    """

    def __init__(self, task: Task, settings: Settings, /, *, policy: str, seed: int) -> None:
        if {"keep", "count", "tokens", "processed"} & parse(policy)[1].keys():
            msg = (
                f"policy {policy!r} says how much is kept, and several fractions are tried here: leave that option out"
            )
            raise LabError(msg)
        if make_policy(policy, keep=KEEPS[0], seed=seed).needs.weights:  # fails before the model is loaded
            msg = f"policy {policy!r} has importance weights, whose loss is not measured here: take one without"
            raise LabError(msg)
        self.task, self.seed, self.bf16, self.policy = task, seed, settings.bf16, policy
        arguments = transformers.TrainingArguments(
            output_dir="unused", learning_rate=0.0, use_cpu=not _has_accelerator(), report_to=[]
        )
        model = load_model(task.model, lora=settings.lora_rank is not None)
        if settings.lora_rank is not None:
            model = with_lora(model, rank=settings.lora_rank, seed=seed)
        self.device: torch.device = arguments.device
        self.model = model.to(self.device).train()
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        make, options = transformers.Trainer.get_optimizer_cls_and_kwargs(arguments)
        self.optimizer: Any = make(self.trained, **options)
        self.passes = TrainingPasses(self.model)
        self.clock = Clock(self.device)
        self.memory: list[PeakMemory] = []
        self._times: dict[tuple[Any, ...], list[tuple[float, int]]] = defaultdict(list)

    def predict(
        self, sizes: Sequence[int], /, *, repeats: int, progress: Callable[[int], None] | None = None
    ) -> list[Prediction]:
        """Return the cost of selection for every size and every fraction of `KEEPS` that keeps at least one sample.

        A first turn over all shapes, on the longest batch, is for warming up and for memory. The others are timed,
        shape after shape, so that a machine that slows down slows all of them. Of each phase the median of seconds a
        token counts, times the tokens that such batches have on average.

        Parameters
        ----------
        sizes
            Numbers of candidates.
        repeats
            How often each is measured, each time on another batch.
        progress
            Called with the number of turns done, one more than `repeats` in the end.

        Raises
        ------
        LabError
            Where there are fewer samples than candidates, memory ends, or the policy cannot score them.
        """
        cases = {size: self._case(size, repeats) for size in sorted(set(sizes))}
        selectors = {size: {keep: self._selector(keep) for keep in _keeps(size)} for size in cases}
        for turn in range(repeats + 1):
            for size, case in cases.items():
                batch = case.batches[turn - 1] if turn else case.longest
                try:
                    self._turn(size, batch, selectors[size], timed=turn > 0)
                except torch.cuda.OutOfMemoryError:
                    msg = f"memory ends in a step on {size} samples: give smaller numbers of `--candidates`"
                    raise LabError(msg) from None
                except ValueError as error:
                    msg = f"the policy {self.policy!r} cannot choose from these records: {error}"
                    raise LabError(msg) from error
            if turn == 0:
                self._evaluate()
            if progress is not None:
                progress(turn + 1)
        return [self._prediction(size, keep, case) for size, case in cases.items() for keep in _keeps(size)]

    def _case(self, size: int, repeats: int) -> _Case:
        examples = self.task.train
        if not 2 <= size <= len(examples):
            msg = f"`candidates` must be between 2 and the number of training examples, {len(examples)}, got {size}"
            raise LabError(msg)
        order = CandidateOrder(len(examples), batch_size=size, seed=self.seed)
        places = order.first(_DRAWN * size)
        drawn = [places[start : start + size] for start in range(0, len(places), size)]
        ranked = sorted(drawn, key=self._padded)
        batches = [ranked[int((turn + 0.5) / repeats * len(ranked))] for turn in range(repeats)]
        random = {k: mean(self._padded(batch[:k]) for batch in drawn) for k in map(_kept(size), _keeps(size))}
        return _Case(batches, ranked[-1], mean(map(self._padded, drawn)), random)

    def _padded(self, places: Sequence[int]) -> int:
        return len(places) * max(len(self.task.train[place]["input_ids"]) for place in places)

    def _selector(self, keep: float) -> BatchSelector:
        policy = make_policy(self.policy, keep=keep, seed=self.seed)
        return BatchSelector(self.model, policy, id_field="index")

    def _turn(self, size: int, places: list[int], selectors: dict[float, BatchSelector], *, timed: bool) -> None:
        """Measure every shape once, the small before the large."""
        for keep, select in selectors.items():
            batch = self._collated(size, places, timed)
            began = self.clock.now()
            with peak(self.device) as held, self._autocast():
                chosen = select(batch)
            self._note(("scoring", size), self.clock.now() - began, _tokens(batch), timed)
            self._remember("scoring", size, held.bytes, timed)
            k = _kept(size)(keep)
            self._train(("chosen", size, k), chosen, timed)
            self._train(("random", size, k), self._collated(size, places[:k], timed=False), timed)
        self._train(("full", size), self._collated(size, places, timed=False), timed)

    def _collated(self, size: int, places: Sequence[int], timed: bool) -> dict[str, torch.Tensor]:
        began = self.clock.now()
        batch = self.task.collator([self.task.train[place] for place in places])
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        self._note(("collate", size), self.clock.now() - began, _tokens(batch), timed)
        return batch

    def _train(self, name: tuple[Any, ...], batch: dict[str, torch.Tensor], timed: bool) -> None:
        inputs = {key: tensor for key, tensor in batch.items() if key != "index"}
        tokens, forward, backward = _tokens(inputs), 0.0, 0.0
        with peak(self.device) as held:
            for piece in self.passes.pieces(inputs):
                began = self.clock.now()
                with self._autocast(), self.passes.bounded(piece):
                    loss = self.model(**piece).loss
                middle = self.clock.now()
                loss.backward()
                end = self.clock.now()
                forward, backward = forward + middle - began, backward + end - middle
            torch.nn.utils.clip_grad_norm_(self.trained, _CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad()
            update = self.clock.now() - end
        self._note((*name, "forward"), forward, tokens, timed)
        self._note((*name, "backward"), backward, tokens, timed)
        self._note(("update",), update, 1, timed)
        self._remember("training", len(inputs["input_ids"]), held.bytes, timed)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def _note(self, name: tuple[Any, ...], seconds: float, tokens: int, timed: bool) -> None:
        if timed:
            self._times[name].append((seconds, tokens))

    def _remember(self, phase: str, samples: int, held: int | None, timed: bool) -> None:
        if timed:
            return
        known = self.peak_of(phase, samples)
        self.memory = [memory for memory in self.memory if memory[:2] != (phase, samples)]
        self.memory.append(PeakMemory(phase, samples, max((x for x in (known, held) if x is not None), default=None)))

    def peak_of(self, phase: str, samples: int, /) -> int | None:
        """Return the highest peak of a phase on so many samples; None where it is not known."""
        return next((memory.bytes for memory in self.memory if memory[:2] == (phase, samples)), None)

    def _evaluate(self) -> None:
        """Measure the memory of a held-out loss, on the longest samples."""
        longest = sorted(self.task.train, key=lambda example: -len(example["input_ids"]))[:_EVALUATED]
        with peak(self.device) as held:
            Likelihood(longest, collator=self.task.collator, batch_size=_EVALUATED)(self.model)
        self._remember("evaluation", len(longest), held.bytes, timed=False)

    def _run_peak(self, *steps: tuple[str, int]) -> int | None:
        """Return the predicted peak of a run that has these phases, and evaluations."""
        peaks = [self.peak_of(*step) for step in (*steps, ("evaluation", min(_EVALUATED, len(self.task.train))))]
        return None if None in peaks else max(x for x in peaks if x is not None)

    def _prediction(self, size: int, keep: float, case: _Case) -> Prediction:
        k = _kept(size)(keep)
        measured = mean(tokens for _, tokens in self._times["scoring", size])
        chosen = mean(tokens for _, tokens in self._times["chosen", size, k, "forward"]) * case.padded / measured
        collate, update = self._seconds(("collate", size), case.padded), self._seconds(("update",), 1)

        def step(name: tuple[Any, ...], tokens: float, scoring: float = 0.0) -> StepCost:
            forward, backward = (self._seconds((*name, part), tokens) for part in ("forward", "backward"))
            return StepCost(collate=collate, scoring=scoring, forward=forward, backward=backward, update=update)

        return Prediction(
            candidates=size,
            keep=keep,
            kept=k,
            selecting=step(("chosen", size, k), chosen, self._seconds(("scoring", size), case.padded)),
            full=step(("full", size), case.padded),
            random=step(("random", size, k), case.random[k]),
            peak=self._run_peak(("scoring", size), ("training", k)),
            full_peak=self._run_peak(("training", size)),
        )

    def _seconds(self, name: tuple[Any, ...], tokens: float) -> float:
        return tokens * median(seconds / number for seconds, number in self._times[name])


def _kept(size: int) -> Callable[[float], int]:
    return lambda keep: uds.Budget(keep=keep).size(size)


def _keeps(size: int) -> list[float]:
    return [keep for keep in KEEPS if keep * size >= 1]


def _tokens(batch: dict[str, torch.Tensor]) -> int:
    return batch["input_ids"].numel()


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()
