"""Scores of a data set, window by window, shared among processes."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import uds_core as uds

from ... import batches
from ...ranks import Ranks
from ...scoring.batch_scorer import BatchScorer
from ...scoring.scorer import Scorer
from .. import model_paths
from ..data import records as data
from ..data.encoding import Collator, EncodedRecords, Example, pad_id
from ..data.files import fingerprint
from ..data.jsonl import Line, Window
from ..data.reader import Reader
from ..data.source import Source
from ..errors import LabError
from ..models import load_model, quiet, with_adapter
from ..policy_spec import make_policy
from ..training.task import encoder_of
from . import target
from .window_store import ScoredRecords, ScoredWindow, WindowStore

__all__ = ["Process", "Scoring", "WindowScorer", "WithLoss", "about", "process", "score", "scorer"]

_LARGEST = float(torch.finfo(torch.float32).max)  # JSON has integers of any size
_SHOWN = 80  # characters
_FOREVER = dt.timedelta(days=30)  # that processes wait for the slowest


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How a data set is scored.

    Parameters
    ----------
    policy
        In words; see `policies`.
    seed
        Of the policy.
    loss
        Whether the token-mean loss is measured too; it makes the logits.
    adapter
        Folder of LoRA adapters that are put on the model.
    bf16
        Compute in bfloat16.
    batch_tokens
        The most tokens in one forward pass, padding included.
    window
        Records that are read, sorted by length and kept together.
    depth
        How many decoder layers run before the head; None: all. See `Scorer`.
    """

    policy: str = "uds"
    seed: int = 0
    loss: bool = False
    adapter: Path | None = None
    bf16: bool = False
    batch_tokens: int = 8192
    window: int = 512
    depth: int | None = None

    def __post_init__(self) -> None:
        if self.depth is not None and self.loss:
            msg = "`loss` is that of the whole model, and `depth` leaves layers out: give one of the two"
            raise LabError(msg)
        for name in ("batch_tokens", "window"):
            if getattr(self, name) < 1:
                msg = f"`{name}` must be at least 1, got {getattr(self, name)}"
                raise LabError(msg)

    def make_policy(self, **provided: Any) -> uds.Policy:
        """The policy; `provided`: options that text cannot express."""
        return make_policy(self.policy, keep=1.0, seed=self.seed, provided=provided)


@dataclass(frozen=True, kw_only=True)
class WithLoss:
    """A policy that writes the token-mean loss down too."""

    policy: uds.Policy

    @property
    def needs(self) -> uds.Needs:
        """Those of the policy, and logits."""
        return replace(self.policy.needs, logits=True)

    def examine(self, candidates: uds.Candidates, /) -> uds.Features:
        """The policy's features, and `loss`."""
        return {**uds.MaxLoss().examine(candidates), **self.policy.examine(candidates)}

    def init(self, features: uds.Features, /) -> Any:
        """The policy's state."""
        return self.policy.init(features)

    def choose(self, state: Any, features: uds.Features, /, *, groups: Any = None) -> tuple[uds.Selection, Any]:
        """As the policy chooses."""
        return self.policy.choose(state, features, groups=groups)


@dataclass(frozen=True, kw_only=True)
class Process:
    """One of those that share the work."""

    rank: int
    size: int
    device: torch.device
    wait: Callable[[], None]
    """For all others."""


@contextlib.contextmanager
def process() -> Iterator[Process]:
    """Who this is: one of those that `accelerate launch` or `torchrun` started, or alone."""
    from accelerate import PartialState

    mine = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_FOREVER)
    device = torch.device("cpu") if state.device is None else state.device
    yield Process(rank=state.process_index, size=state.num_processes, device=device, wait=state.wait_for_everyone)
    if mine and state.num_processes > 1:
        state.destroy_process_group()


class WindowScorer:
    """From a window of lines to features.

    Parameters
    ----------
    source
        Model folder and data.
    scoring
        How.
    device
        Where the model runs.

    Raises
    ------
    LabError
        Where model, adapter, policy or template are not as they should be.
    """

    def __init__(self, source: Source, scoring: Scoring, /, *, device: torch.device) -> None:
        self.source, self.scoring, self.device = source, scoring, device
        self._reader = Reader(source.data)
        with quiet():
            model = load_model(source.model)
            model = model if scoring.adapter is None else with_adapter(model, scoring.adapter)
        self.encoder = encoder_of(source)
        self.collator = Collator(pad_id(self.encoder.tokenizer))
        policy: Any = scoring.make_policy(**target.options(source, scoring.policy, self.encoder))
        self.policy: Any = WithLoss(policy=policy) if scoring.loss else policy
        model = model.requires_grad_(False).to(device).eval()  # nothing trains, so that the head is prepared once
        scorer: Any = Scorer if scoring.depth is None else functools.partial(Scorer, depth=scoring.depth)
        try:
            self._batch_scorer = BatchScorer(model, self.policy, Ranks(), scorer=scorer, id_field="index")
        except ValueError as error:
            raise LabError(str(error)) from error
        if isinstance(policy, uds.RDS):
            policy = target.embedded(policy, source, self.encoder, scorer=self._batch_scorer, device=device)
            self.policy = WithLoss(policy=policy) if scoring.loss else policy

    def __call__(self, window: Window, /, *, progress: Callable[[int], None] | None = None) -> ScoredWindow:
        """All records of a window, and the features of those that can be scored, in the file's order.

        `progress` is called with the number of records each time that some are done.

        Raises
        ------
        LabError
            Where a line is no record, named by its number, or the policy cannot score them.
        """
        read = list(self._reader.read(window))
        records = [data.parse(line, path=self.source.data, fields=self.source.fields) for line in read]
        with quiet():
            encoded = self.encoder.encode(records)
        rows = _rows(read, encoded)
        numbers = rows.record[rows.trained > 0].tolist()
        known = [{**example, "index": number} for example, number in zip(encoded.examples, numbers, strict=True)]
        if progress is not None:
            progress(len(read) - len(known))
        return ScoredWindow(
            rows=rows,
            features=self._features(known, encoded.records, progress) if known else {},
            summary=encoded.summary,
        )

    def check_tokens(self, every: Sequence[Window], /) -> None:
        """Encode all records if the tokenizer has tokens beyond the model's embedding, and raise if one occurs."""
        beyond = max(self.encoder.tokenizer.get_vocab().values()) >= (self.encoder.vocabulary or math.inf)
        with quiet():
            for window in every if beyond else ():
                read = self._reader.read(window)
                self.encoder.encode(data.parse(line, path=self.source.data, fields=self.source.fields) for line in read)

    def _features(
        self, examples: Sequence[Any], records: Sequence[data.Record], progress: Callable[[int], None] | None
    ) -> dict[str, torch.Tensor]:
        found: list[uds.Features] = []
        order: list[int] = []
        for places in by_length(examples, tokens=self.scoring.batch_tokens):
            batch = {**self.collator([examples[place] for place in places]), **self._beside(records, places)}
            found.append(self._examined(batch))
            order += places
            if progress is not None:
                progress(len(places))
        back = torch.tensor(order).argsort()
        return {name: column[back.to(column.device)] for name, column in uds.pool(found).items()}

    def _examined(self, batch: dict[str, torch.Tensor]) -> uds.Features:
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.scoring.bf16)
        try:
            samples, _ = self._batch_scorer.view(batch)
            with torch.no_grad(), autocast:
                return self._batch_scorer.features(self.policy, [samples], choice=0)
        except ValueError as error:
            msg = f"the policy {self.scoring.policy!r} cannot score these records: {error}"
            raise LabError(msg) from error

    def _beside(self, records: Sequence[data.Record], places: Sequence[int]) -> dict[str, torch.Tensor]:
        """Numbers that the policy reads of the records themselves."""
        found: dict[str, torch.Tensor] = {}
        for name in self.policy.needs.columns:
            values = [records[place].raw.get(name) for place in places]
            for value, place in zip(values, places, strict=True):
                if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > _LARGEST:
                    got = f"{value!r}"[:_SHOWN]
                    msg = f"{records[place].where}: the policy reads the number {name!r} of each record, got {got}"
                    raise LabError(msg)
            found[name] = torch.tensor(values, dtype=torch.float32)
        return found


def scorer(
    source: Source,
    scoring: Scoring,
    /,
    *,
    process: Process,
    parts: WindowStore,
    every: Sequence[Window],
    overwrite: bool = False,
) -> WindowScorer | None:
    """Return what scores the windows of one process; None if all are finished, and not to be overwritten.

    Raises
    ------
    LabError
        See `WindowScorer`; and if the tokenizer has tokens beyond the model's embedding, and a record has one of them.
    """
    if not overwrite and all(parts.has(number) for number in _own(process, every)):
        return None
    made = WindowScorer(source, scoring, device=process.device)
    made.check_tokens(every)
    return made


def score(
    scorer: WindowScorer,
    /,
    *,
    process: Process,
    parts: WindowStore,
    every: Sequence[Window],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Score the windows of one process that are not finished yet; each is saved as soon as it is.

    Windows go round: with two processes, every other one to each. `progress` is called with the number of records done.
    """
    for number in _own(process, every):
        if not parts.has(number):
            parts.save(number, scorer(every[number], progress=progress))


def _own(process: Process, every: Sequence[Window]) -> range:
    return range(process.rank, len(every), process.size)


def about(source: Source, scoring: Scoring, /) -> dict[str, Any]:
    """What the features depend on, for `WindowStore`; reads the data once."""
    folders = {"model": source.model, "adapter": scoring.adapter}
    there = {name: folder for name, folder in folders.items() if folder is not None and folder.is_dir()}
    return {
        **{name: model_paths.fingerprint(folder) for name, folder in there.items()},
        "data": fingerprint(source.data),
        **({} if source.target is None else {"target": fingerprint(source.target)}),
        **{name: getattr(source, name) for name in ("limit", "template", "train_on", "max_length")},
        "fields": asdict(source.fields),
        **{
            name: getattr(scoring, name)
            for name in ("policy", "seed", "loss", "bf16", "batch_tokens", "window", "depth")
        },
    }


def by_length(examples: Sequence[Example], /, *, tokens: int) -> Iterator[list[int]]:
    """Places of examples in batches of similar length, the longest first, of at most `tokens` with their padding."""
    lengths = [len(example["input_ids"]) for example in examples]
    batch: list[int] = []
    for place in sorted(range(len(examples)), key=lambda place: -lengths[place]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _rows(read: Sequence[Line], encoded: EncodedRecords) -> ScoredRecords:
    rest = iter(encoded.examples)
    examples = [next(rest) if reason is None else None for reason in encoded.left_out]
    trained = [0 if e is None else sum(label != batches.IGNORE for label in e["labels"][1:]) for e in examples]
    return ScoredRecords(
        record=np.array([line.record for line in read], dtype=np.int64),
        line=np.array([line.line for line in read], dtype=np.int64),
        tokens=np.array([0 if e is None else len(e["input_ids"]) for e in examples], dtype=np.int32),
        trained=np.array(trained, dtype=np.int32),
        left_out=np.array([reason or "" for reason in encoded.left_out], dtype=object),
    )
