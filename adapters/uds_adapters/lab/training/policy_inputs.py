"""Inputs that some policies need beside the candidates, and their cost: losses and validation samples."""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ... import reference_losses
from ...scoring.layer_gradients import LayerGradientScorer
from ...scoring.validation import ValidationScorer
from .. import storage
from ..data.encoding import Collator, Example
from ..data.source import Source
from ..data.target import in_batches, target_counts
from ..errors import LabError
from ..models import load_model, load_tokenizer, quiet, vocabulary
from ..policy_spec import parse, wants_target
from .run import train_once
from .run_result import RunResult
from .settings import Settings
from .task import Task

__all__ = ["ASIDE", "PolicyInputs", "check_models", "prepare", "provide", "set_aside"]

ASIDE = 0.1
"""Fraction of the training records that is set aside by default where a policy needs some."""

_VALIDATION = 16  # samples, anew in each step
_LOSSES = {"rholoss": "reference", "lossdrop": "start"}  # policy -> its option that takes losses


@dataclass(frozen=True, kw_only=True)
class PolicyInputs:
    """Inputs of one run of a policy."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the policy."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """Of the selector."""
    validation: _Validation | None = None
    seconds: float = 0.0
    """Seconds spent before the run."""
    tokens: int = 0
    """Tokens passed through a model before the run."""

    def costed(self, result: RunResult, /) -> RunResult:
        """Return `result` with the cost of the inputs: `preparation`, and validation samples that were scored."""
        scored = result.tokens["forwarded_for_scoring"] + (self.validation.tokens if self.validation else 0)
        tokens = {**result.tokens, "forwarded_for_scoring": scored, "preparation": self.tokens}
        return replace(result, tokens=tokens, seconds={**result.seconds, "preparation": self.seconds})


def set_aside(policies: Sequence[str], /, *, fraction: float | None, reference_model: Path | None) -> float:
    """Return the fraction of the training records that no policy may choose; None: as much as `policies` need.

    Raises
    ------
    LabError
        Where nothing is to be set aside, and a policy needs it.
    """
    names = [_name(policy) for policy in policies]
    needy = [name for name in names if name == "greats" or (name == "rholoss" and reference_model is None)]
    if needy and fraction == 0:
        msg = (
            f"{needy[0]} needs training records that are no candidates, and `aside` is 0: leave `--aside` away, or "
            f"give a fraction such as {ASIDE}"
        )
        raise LabError(msg)
    return fraction if fraction is not None else ASIDE * bool(needy)


def check_models(task: Task, policies: Sequence[str], /, *, source: Source) -> None:
    """Load each model that the runs of `policies` load, and the reference model's tokenizer.

    Raises
    ------
    LabError
        If one cannot be loaded, if its weights do not match it, or if the reference model has another tokenizer.
    """
    task.load_model()
    if source.reference_model is not None and "rholoss" in map(_name, policies):
        _reference_model(task, source.reference_model)


def prepare(
    task: Task, policies: Sequence[str], /, *, source: Source, settings: Settings, seed: int, folder: Path
) -> None:
    """Measure the losses that `policies` need and write them into `folder`, unless they are there.

    RHO-Loss compares with the model in `source.reference_model`; or with the model itself after one pass over the
    records that are set aside, trained as the runs are and on as many samples a step. The margins of `uds.LossDrop`
    begin with the losses before training.
    """
    for option in sorted({_LOSSES[name] for name in map(_name, policies) if name in _LOSSES}):
        if (folder / f"{option}.json").is_file():
            continue
        began = time.perf_counter()
        model, tokens = _model(option, task, source=source, settings=settings, seed=seed, folder=storage.folder(folder))
        losses = reference_losses.measure(model, in_batches(task.train, task.collator), id_field="index")
        tokens += sum(len(example["input_ids"]) for example in task.train)
        reference_losses.save(folder / f"{option}.safetensors", losses)
        costs = {"seconds": time.perf_counter() - began, "tokens": tokens}
        storage.write(folder / f"{option}.json", json.dumps(costs))  # last: its presence says that all is there


def provide(task: Task, spec: str, /, *, settings: Settings, seed: int, folder: Path) -> PolicyInputs:
    """Return the inputs of a run of the policy `spec`; `folder` holds what `prepare` wrote."""
    name = _name(spec)
    if name in _LOSSES:
        option = _LOSSES[name]
        costs = json.loads((folder / f"{option}.json").read_text(encoding="utf-8"))
        losses = reference_losses.load(folder / f"{option}.safetensors")
        return PolicyInputs(options={option: losses}, **costs)
    if wants_target(spec):
        return PolicyInputs(options=of_target(task, spec))
    if name == "greats":
        validation = _Validation(task.aside, task.collator, seed=seed)
        scorer = ValidationScorer if settings.lora_rank is None else LayerGradientScorer  # LoRA freezes the head
        return PolicyInputs(
            selection={"scorer": functools.partial(scorer, validation=validation)}, validation=validation
        )
    return PolicyInputs()


def of_target(task: Task, spec: str, /) -> dict[str, Any]:
    """Return the option `target` of the policy `spec`, counts of n-grams; nothing for a policy without it."""
    return {"target": target_counts(task.target, task.collator)} if wants_target(spec) else {}


class _Validation:
    """Batches of samples that were set aside, each sample once before any comes again; counts their tokens."""

    def __init__(self, examples: Sequence[Example], collator: Collator, *, seed: int) -> None:
        self.examples, self.collator = examples, collator
        self._generator, self._left = random.Random(seed), list[int]()
        self.tokens = 0

    def __call__(self) -> dict[str, Any]:
        size = min(_VALIDATION, len(self.examples))
        if len(self._left) < size:
            self._left = self._generator.sample(range(len(self.examples)), len(self.examples))
        places, self._left = self._left[:size], self._left[size:]
        batch = self.collator([self.examples[place] for place in places])
        del batch["index"]  # their places are not those of candidates
        self.tokens += int(batch["attention_mask"].sum())
        return batch


def _name(spec: str) -> str:
    return parse(spec)[0]


def _model(option: str, task: Task, *, source: Source, settings: Settings, seed: int, folder: Path) -> tuple[Any, int]:
    """Return the model whose losses are wanted, and the number of tokens that its training took."""
    if option == "start":
        return task.load_model(), 0
    if source.reference_model is not None:
        return _reference_model(task, source.reference_model), 0
    size = max(1, min(round(settings.keep * settings.batch_size), len(task.aside)))
    trained = train_once(
        replace(task, train=task.aside),
        policy="full",
        seed=seed,
        settings=replace(settings, keep=1.0, batch_size=size, steps=None, epochs=1.0, budget="candidates"),
        folder=folder,
    )
    return trained.model, trained.result.tokens["forwarded_for_training"]


def _reference_model(task: Task, folder: Path) -> Any:
    with quiet():
        size = vocabulary(folder)
        missing = size is not None and any(max(example["input_ids"]) >= size for example in task.train)
        if missing or load_tokenizer(folder).get_vocab() != task.tokenizer.get_vocab():
            msg = (
                f"`reference-model` {folder} has another tokenizer than {task.model}, so that their losses cannot be "
                "compared: name a model with the same one"
            )
            raise LabError(msg)
        return load_model(folder)
