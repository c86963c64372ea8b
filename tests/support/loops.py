"""Training loops that the processes of a test run: each returns what it chose, its gradients and what it remembers."""

import hashlib
import os
import signal
import time
import warnings
from typing import Any

import tiny
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

import uds_core as uds
from uds_adapters.audit import Audit
from uds_adapters.ranks import GatheredPool, RankError, Ranks
from uds_adapters.scoring.models import is_sharded
from uds_adapters.selection.choosing import choose
from uds_adapters.torch import BatchSelector, weighted_loss

POLICY = {"keep": 0.5, "memory": 16, "dim": 16, "weight": 2.0}


def world() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def flat(parameters) -> torch.Tensor:
    return torch.cat([p.grad.flatten().clone() for p in parameters if p.grad is not None])


def flat_weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def digest(select: BatchSelector) -> str:
    """Of all bits that are remembered."""
    found = hashlib.sha256()
    for name, tensor in sorted(select.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def chosen(select: BatchSelector) -> list[int]:
    assert select.last is not None
    return select.last.indices.tolist()


def pools(steps: int, accumulation: int, pool: int, *, seed: int = 0) -> list[list[list[dict[str, Any]]]]:
    """Examples of each micro-batch of each step, of all ranks."""
    rows = iter(tiny.examples(steps * accumulation * pool, seed=seed))
    return [[[next(rows) for _ in range(pool)] for _ in range(accumulation)] for _ in range(steps)]


def plain(
    folder,
    *,
    ranks: Any = "rank",
    rows: Any = "move",
    accumulation=1,
    scope: Any = "step",
    steps=3,
    pool=8,
    policy=None,
    sizes=None,
    start=0,
    save=None,
    spoil=None,
    model=None,
    audit=False,
    **options,
):
    """A loop over DDP; every rank draws its part of each pool. `sizes`: of the parts. `spoil(step, rank, batch)`."""
    rank, size = world()
    ranks = Ranks(placement=ranks, samples=rows)
    torch.manual_seed(0)
    bare = tiny.llama() if model is None else model()
    model = torch.nn.parallel.DistributedDataParallel(bare) if size > 1 else bare
    select = BatchSelector(model, uds.UDS(**POLICY) if policy is None else policy, ranks=ranks, **options)
    if audit:
        select.audit = Audit(folder / f"audit_{rank}.jsonl")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    if start:
        kept = torch.load(folder / "loop.pt", weights_only=True)
        bare.load_state_dict(kept["model"])
        select.load_state_dict(kept["select"])
    picks, here, gradients, bytes_, counts, served = [], [], [], [], [], []
    for step, micros in enumerate(pools(steps, accumulation, pool)):
        if step < start:
            continue
        window = [tiny.collate(part(examples, rank, size, sizes)) for examples in micros]
        if spoil is not None:
            window = [spoil(step, rank, batch) for batch in window]
        kept, tokens = select.select_step(window, step=step, scope=scope)
        counts.append([len(batch["labels"]) for batch in kept])
        for batch in kept:
            (model(**batch, num_items_in_batch=tokens).loss * size).backward()
        picks.append(sorted(chosen(select)) if select.last else None)
        here.append(select.last_indices)
        gradients.append(flat(model.parameters()))
        bytes_.append(select.metrics.get("gathered_bytes", 0))
        served.append(steps_served(select))
        optimizer.step()
        optimizer.zero_grad()
        if save == step + 1 and rank == 0:
            torch.save({"model": bare.state_dict(), "select": select.state_dict()}, folder / "loop.pt")
    return {
        "picks": picks,
        "here": here,
        "gradients": gradients,
        "memory": digest(select),
        "bytes": bytes_,
        "gathers": select.ranks.gathers,
        "counts": counts,
        "served": served,
        "last": float(flat_weights(bare).sum()),
        "size": int(select.history.state.memory.size) if hasattr(select.history.state, "memory") else 0,
    }


class Counted:
    """A policy that counts the candidates that it prepares, and fails at the call `fails`."""

    def __init__(self, policy, fails=None) -> None:
        self.policy, self.needs, self.prepared, self.fails = policy, policy.needs, [], fails

    def prepare(self, state, features, rows):
        self.prepared.append(rows.stop - rows.start)
        if len(self.prepared) == self.fails:
            msg = "broken"
            raise FloatingPointError(msg)
        return self.policy.prepare(state, features, rows)

    def choose(self, state, features, *, groups=None):
        return self.policy.choose(state, features, groups=groups)


def divided(folder, *, policy, features, fails=None):
    """Choices whose work is divided; each must be that of this process alone, to the bit."""
    rank, _ = world()
    state, alone = None, None
    counted: Any = Counted(policy, fails if rank else None)
    picks = []
    for step in range(3):
        columns = features(step)
        number = len(columns["length"])
        rest = (torch.ones(number, dtype=torch.int64), torch.zeros(number, dtype=torch.int64))
        pool = GatheredPool(columns, *rest, rest[1], torch.zeros(0))
        got, state = choose(counted, state, pool, Ranks(placement="global"))
        expected, alone = policy.choose(alone, columns)
        assert torch.equal(got.scores, expected.scores)
        assert torch.equal(got.indices, expected.indices)
        picks.append(got.indices.tolist())
    return {"picks": picks, "prepared": counted.prepared}


def steps_served(select):
    """How many steps what is derived of the head has served, the present one included."""
    scorer = select._batch_scorer
    scorer = scorer._sharded if is_sharded(select.model) else scorer._scorer
    return None if scorer is None else scorer._reader.prepared._steps


def explicit(examples, weights, tokens) -> Any:
    """Gradient of the sum over samples of weight times the sample's summed token loss, over `tokens`."""
    model = tiny.llama()
    total = torch.zeros(())
    for one, weight in zip(examples, weights, strict=True):
        logits = model(input_ids=torch.tensor([one["input_ids"]])).logits[0, :-1]
        targets = torch.tensor(one["labels"][1:])
        total = total + weight * torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (total / tokens).backward()
    return flat(model.parameters())


def drawn(selection) -> tuple[list[int], list[float]]:
    """Indices and weights of what a policy drew."""
    assert selection is not None
    assert selection.weights is not None
    assert float(selection.weights.std()) > 0.1
    return selection.indices.tolist(), selection.weights.tolist()


def far(got, expected) -> float:
    return float((got - expected).norm() / expected.norm())


def weighted(folder, *, ranks: Any, pool=16):
    """One step of a plain loop whose policy draws with importance weights."""
    rank, size = world()
    model = torch.nn.parallel.DistributedDataParallel(tiny.llama())
    policy = uds.UDS(**POLICY, temperature=2.0)
    select = BatchSelector(model, policy, ranks=Ranks(placement="global", samples="stay") if ranks == "stay" else ranks)
    batch = select(tiny.collate(part(pools(1, 1, pool)[0][0], rank, size)))
    weights = batch.pop("loss_weights")
    (weighted_loss(model(**batch).logits, batch["labels"], weights, num_items=select.tokens) * size).backward()
    assert select.last is not None
    assert select.last.weights is not None
    return {
        "picks": chosen(select),
        "weights": select.last.weights.tolist(),
        "gradient": flat(model.parameters()),
    }


def part(examples, rank, size, sizes=None):
    """The examples of a rank: as many as all others have, or as `sizes` says."""
    sizes = [len(examples) // size] * size if sizes is None else sizes
    first = sum(sizes[:rank])
    return examples[first : first + sizes[rank]]


def gradient_of(examples) -> torch.Tensor:
    """Of the token mean over examples, in one process and one batch."""
    model = tiny.llama()
    model(**tiny.collate(examples)).loss.backward()
    return flat(model.parameters())


class Trained:
    """What a Trainer chose and computed, step by step."""

    def __init__(self) -> None:
        self.picks: list[list[int]] = []
        self.gradients: list[torch.Tensor] = []
        self.counts: list[list[int]] = []
        self.kept: list[Any] = []  # batches of the first step


def recording(base: Any, seen: Trained, *, kill: Any = None, shuffled: bool = False) -> Any:
    """A Trainer class over the data in their order, or `shuffled`, that notes what it does."""

    class Recording(base):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            if shuffled:
                return super()._get_train_sampler(*args, **kwargs)
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            kept, number = super().get_batch_samples(*args, **kwargs)
            seen.kept = seen.kept or [dict(one) for one in kept if len(one["labels"])]
            seen.counts.append([int((one["labels"][:, 1:] != -100).any(1).sum()) for one in kept])
            return kept, number

        def _uds_chosen(self) -> None:
            super()._uds_chosen()
            seen.picks.append(sorted(chosen(self.selector)))
            if kill == (world()[0], self.state.global_step):
                os.kill(os.getpid(), signal.SIGKILL)

    return Recording


def noting(seen: Trained) -> Any:
    from transformers import TrainerCallback

    class Noting(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            seen.gradients.append(flat(model.parameters()))

    return Noting()


def trainer(
    folder,
    *,
    resume=None,
    ranks="global",
    scope="step",
    policy=None,
    dropout=0.0,
    data=None,
    pool=8,
    number=96,
    kill=None,
    shuffled=False,
    **options,
):
    """The Hugging Face Trainer; `pool`: candidates of a micro-batch, of all ranks."""
    from transformers import TrainingArguments

    from uds_adapters.transformers import UDSTrainer

    seen, size = Trained(), world()[1]
    arguments = {
        "output_dir": str(folder),
        "per_device_train_batch_size": pool // size,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **options,
    }
    run = recording(UDSTrainer, seen, kill=kill, shuffled=shuffled)(
        model=tiny.llama(dropout=dropout),
        args=TrainingArguments(**arguments),
        train_dataset=tiny.examples(number) if data is None else data(),
        data_collator=tiny.collate,
        policy=uds.UDS(**POLICY) if policy is None else policy,
        ranks=Ranks(placement="global", samples="stay") if ranks == "stay" else ranks,
        scope=scope,
        callbacks=[noting(seen)],
    )
    run.train(resume_from_checkpoint=str(folder / resume) if isinstance(resume, str) else resume)
    return reported(run, seen)


def trl(folder, *, accumulation=1, pool=8, mode="padded", count=None):
    """TRL's trainer, on texts; `count`: of the longest."""
    import trl_data
    from trl.trainer.sft_config import SFTConfig

    from uds_adapters.trl import UDSSFTTrainer

    seen, size = Trained(), world()[1]
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=pool // size,
        gradient_accumulation_steps=accumulation,
        max_steps=2,
        learning_rate=1e-2,
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **trl_data.MODES[mode],
    )
    run = recording(UDSSFTTrainer, seen)(
        model=tiny.llama(),
        args=arguments,
        train_dataset=trl_data.data(mode),
        processing_class=trl_data.tokenizer(),
        policy=uds.UDS(**POLICY) if count is None else uds.Longest(count=count),
        ranks="global",
        scope="step",
        callbacks=[noting(seen)],
    )
    run.train()
    return reported(run, seen)


def reported(run: Any, seen: Trained) -> dict[str, Any]:
    memory = getattr(run.selector.history.state, "memory", None)
    entries = [entry for entry in run.state.log_history if "loss" in entry]
    return {
        "picks": seen.picks,
        "gradients": seen.gradients,
        "counts": seen.counts,
        "kept": seen.kept,
        "memory": digest(run.selector),
        "parameters": flat_weights(run.model),
        "losses": [entry["loss"] for entry in entries],
        "log": entries,
        "order": run.selector.last.indices.tolist() if run.selector.last else None,
        "weights": getattr(getattr(run.selector.last, "weights", None), "tolist", lambda: None)(),
        "remembered": int(memory.size) if memory is not None else 0,
    }


def grouped(folder, *, steps=3):
    """Four processes, of which two and two choose together."""
    rank, size = world()
    groups = [dist.new_group([first, first + 1]) for first in range(0, size, 2)]
    ranks = Ranks(placement="global", group=groups[rank // 2])
    select = BatchSelector(tiny.llama(), uds.UDS(**POLICY), ranks=ranks)
    picks = []
    for step in range(steps):
        select(tiny.batch(4, seed=10 * step + rank))
        picks.append(sorted(chosen(select)))
    return {"picks": picks, "memory": digest(select), "first": ranks.first(rank)}


# sharded models


def sharded(model: Any, *, own_group: bool) -> Any:
    """FSDP2: each layer a group, the root another, and perhaps the head one of its own."""
    from torch.distributed.fsdp import fully_shard

    for layer in model.model.layers:
        fully_shard(layer)
    if own_group:
        fully_shard(model.lm_head)
    return fully_shard(model)


def wide(vocab: int) -> Any:
    """A model whose frozen head is larger than all that is held in blocks."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    options: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocab, pad_token_id=0, **options))
    model.lm_head.weight.requires_grad = False
    return model


def whole(tensor: Any) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def fsdp(
    folder,
    *,
    tied=False,
    frozen=False,
    own_group=False,
    ranks: Any = "global",
    steps=3,
    pool=8,
    uneven=False,
    score_batch_size=None,
    policy=None,
    vocab=None,
    **options,
):
    """A plain loop over a fully sharded model, or over the same one in one process."""
    rank, size = world()
    model = tiny.llama(tied=tied, frozen_head=frozen) if vocab is None else wide(vocab)
    if size > 1:
        model = sharded(model, own_group=own_group)
    policy = uds.UDS(**POLICY) if policy is None else policy
    select = BatchSelector(model, policy, ranks=ranks, score_batch_size=score_batch_size, **options)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    picks, gradients, made, served = [], [], [], []
    for step, (examples,) in enumerate(pools(steps, 1, pool)):
        sizes = [pool - 3, 3] if uneven and size == 2 else None
        window = [tiny.collate(part(examples, rank, size, sizes))]
        with Large(model) as large:
            kept, tokens = select.select_step(window, step=step)
        made.append(large.made)
        served.append(steps_served(select))
        for batch in kept:
            (model(**batch, num_items_in_batch=tokens).loss * size).backward()
        picks.append(sorted(chosen(select)))
        gradients.append(torch.cat([whole(p.grad).flatten().clone() for p in model.parameters() if p.grad is not None]))
        optimizer.step()
        optimizer.zero_grad()
    return {
        "picks": picks,
        "gradients": gradients,
        "memory": digest(select),
        "made": made,
        "served": served,
        "sharded": is_sharded(model),
    }


def zero3(folder, *, tied=False, frozen=False, steps=3, pool=8):
    """The same loop under DeepSpeed's ZeRO-3."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "DS_IGNORE_CUDA_DETECTION": "TRUE"}
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    rank, size = world()
    model = tiny.llama(tied=tied, frozen_head=frozen)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,
    }
    engine: Any = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)[0]
    select = BatchSelector(engine, uds.UDS(**POLICY), ranks="global")
    picks, gradients = [], []
    for step, (examples,) in enumerate(pools(steps, 1, pool)):
        kept, tokens = select.select_step([tiny.collate(part(examples, rank, size))], step=step)
        for batch in kept:
            engine.backward(engine(**batch, num_items_in_batch=tokens).loss * size)
        picks.append(sorted(chosen(select)))
        parameters = [p for p in engine.module.parameters() if p.requires_grad]
        gradients.append(torch.cat([safe_get_full_grad(p).flatten().clone() for p in parameters]))
        engine.step()
    return {"picks": picks, "gradients": gradients, "memory": digest(select), "sharded": is_sharded(engine)}


class Large(TorchDispatchMode):
    """Notes what is made as large as the whole head while entered."""

    def __init__(self, model) -> None:
        super().__init__()
        self.least, self.made = model.config.vocab_size * model.config.hidden_size * 4, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if type(one) is torch.Tensor and one.untyped_storage().nbytes() >= self.least:
                known = [a for a in args if isinstance(a, torch.Tensor)]
                if not any(a.untyped_storage()._cdata == one.untyped_storage()._cdata for a in known):
                    self.made.append(str(func))
        return out


# what goes wrong on one rank


def waiting(folder):
    """Forever."""
    while True:
        time.sleep(1)


def without_targets(step, rank, batch):
    return {**batch, "labels": torch.full_like(batch["labels"], -100)} if (step, rank) == (1, 1) else batch


def without_labels(step, rank, batch):
    return {name: value for name, value in batch.items() if (step, rank) != (1, 1) or name != "labels"}


def of_another_length(step, rank, batch):
    return {**batch, "attention_mask": batch["attention_mask"][:, :-1]} if (step, rank) == (1, 1) else batch


BROKEN = tiny.VOCAB - 1  # a token whose embedding is not finite


def broken_model():
    model = tiny.llama()
    model.model.embed_tokens.weight.data[BROKEN] = float("nan")
    return model


def with_broken_tokens(number):
    def spoil(step, rank, batch):
        ids = batch["input_ids"].where(batch["input_ids"] != BROKEN, BROKEN - 1)
        if (step, rank) == (1, 1):
            ids[:number, 0] = BROKEN
        return {**batch, "input_ids": ids}

    return spoil


def half_broken(step, rank, batch):
    return with_broken_tokens(2)(step, rank, batch)


def all_broken(step, rank, batch):
    return with_broken_tokens(4)(step, rank, batch)


def uneven(folder, *, ranks: Any = "rank", numbers=(3, 2), fail=None, direct=False):
    """Loaders of different lengths, or one that fails, through `iterate` or by calling the selector."""
    rank, size = world()
    model = torch.nn.parallel.DistributedDataParallel(tiny.llama()) if size > 1 else tiny.llama()
    select = BatchSelector(model, uds.UDS(**POLICY), ranks=ranks)

    def loader():
        for number in range(numbers[rank]):
            if fail == (rank, number):
                msg = "the disk is gone"
                raise OSError(msg)
            yield tiny.batch(4, seed=10 * number + rank)

    done = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for batch in map(select, loader()) if direct else select.iterate(loader()):
            (model(**batch, num_items_in_batch=select.tokens).loss * size).backward()
            done += 1
    return {"done": done, "memory": digest(select), "warnings": [str(one.message) for one in caught]}


def loaders_that_differ(folder, *, of):
    """What a plain loop says of the loaders ``of(name, rank)``, by name; None where it says nothing."""
    found: dict[str, str | None] = {}
    for name in of(None, 0):
        select = BatchSelector(tiny.llama(), uds.UDS(**POLICY), ranks="global")
        try:
            found[name] = None
            for _ in range(2):
                list(select.iterate(of(name, world()[0])))
        except RankError as error:
            found[name] = str(error)
    return found


def trainers_that_differ(folder, *, of):
    """The same of Trainers, by name; ``of(name, rank)`` are their options."""
    found: dict[str, str | None] = {}
    for name in of(None, 0):
        try:
            found[name] = None
            trainer(folder, **of(name, world()[0]))
        except RankError as error:
            found[name] = str(error)
    return found


class Stream(torch.utils.data.IterableDataset):
    """Data without a length."""

    def __init__(self, number=40):
        self.number = number

    def __iter__(self):
        return iter(tiny.examples(self.number))


def fixed_length(number=40):
    """Examples of one length: what a dispatching loader takes apart."""
    return [
        {"input_ids": (one["input_ids"] * 4)[:8], "labels": (one["input_ids"] * 4)[:8]} for one in tiny.examples(number)
    ]


class FixedStream(Stream):
    def __iter__(self):
        return iter(fixed_length(self.number))
