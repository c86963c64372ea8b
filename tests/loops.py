"""Training loops that the processes of a test run: each returns what it chose, its gradients and what it remembers."""

import hashlib
from typing import Any

import tiny
import torch
import torch.distributed as dist

import uds_core as uds
from uds_adapters.ranks import Ranks
from uds_adapters.torch import BatchSelector

POLICY = {"keep": 0.5, "memory": 16, "dim": 16, "weight": 2.0}


def world() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def flat(parameters) -> torch.Tensor:
    return torch.cat([p.grad.flatten().clone() for p in parameters if p.grad is not None])


def digest(select: BatchSelector) -> str:
    """Of all bits that are remembered."""
    found = hashlib.sha256()
    for name, tensor in sorted(select.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def pools(steps: int, accumulation: int, pool: int, *, seed: int = 0) -> list[list[list[dict[str, Any]]]]:
    """Examples of each micro-batch of each step, of all ranks."""
    rows = iter(tiny.examples(steps * accumulation * pool, seed=seed))
    return [[[next(rows) for _ in range(pool)] for _ in range(accumulation)] for _ in range(steps)]


def plain(
    folder,
    *,
    ranks: Any = "rank",
    rows="move",
    accumulation=1,
    scope="step",
    steps=3,
    pool=8,
    policy=None,
    sizes=None,
    start=0,
    save=None,
    spoil=None,
    model=None,
):
    """A loop over DDP; every rank draws its part of each pool. `sizes`: of the parts. `spoil(step, rank, batch)`."""
    rank, size = world()
    ranks = Ranks(scope=ranks, rows=rows)
    torch.manual_seed(0)
    bare = tiny.llama() if model is None else model()
    model = torch.nn.parallel.DistributedDataParallel(bare) if size > 1 else bare
    select = BatchSelector(model, uds.UDS(**POLICY) if policy is None else policy, ranks=ranks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    if start:
        kept = torch.load(folder / "loop.pt", weights_only=True)
        bare.load_state_dict(kept["model"])
        select.load_state_dict(kept["select"])
    picks, gradients, bytes_, counts = [], [], [], []
    for step, micros in enumerate(pools(steps, accumulation, pool)):
        if step < start:
            continue
        window = [tiny.collate(part(examples, rank, size, sizes)) for examples in micros]
        if spoil is not None:
            window = [spoil(step, rank, batch) for batch in window]
        kept, tokens = select.window(window, step=step, scope=scope)
        counts.append([len(batch["labels"]) for batch in kept])
        for batch in kept:
            (model(**batch, num_items_in_batch=tokens).loss * size).backward()
        picks.append(sorted(select.last.indices.tolist()))
        gradients.append(flat(model.parameters()))
        bytes_.append(select.metrics.get("gathered_bytes", 0))
        optimizer.step()
        optimizer.zero_grad()
        if save == step + 1 and rank == 0:
            torch.save({"model": bare.state_dict(), "select": select.state_dict()}, folder / "loop.pt")
    return {
        "picks": picks,
        "gradients": gradients,
        "memory": digest(select),
        "bytes": bytes_,
        "gathers": select.ranks.gathers,
        "counts": counts,
        "size": int(select.history.state.memory.size) if hasattr(select.history.state, "memory") else 0,
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


def recording(base: Any, seen: Trained) -> Any:
    """A Trainer class over the data in their order, that notes what it does."""

    class Recording(base):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            kept, number = super().get_batch_samples(*args, **kwargs)
            seen.counts.append([int((one["labels"][:, 1:] != -100).any(1).sum()) for one in kept])
            return kept, number

        def _uds_chosen(self) -> None:
            super()._uds_chosen()
            seen.picks.append(sorted(self.selector.last.indices.tolist()))

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
    **options,
):
    """The Hugging Face Trainer; `pool`: candidates of a micro-batch, of all ranks."""
    from transformers import TrainingArguments

    from uds_adapters.transformers import UDSTrainer

    seen, (rank, size) = Trained(), world()
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
    run = recording(UDSTrainer, seen)(
        model=tiny.llama(dropout=dropout),
        args=TrainingArguments(**arguments),
        train_dataset=tiny.examples(number) if data is None else data(),
        data_collator=tiny.collate,
        policy=uds.UDS(**POLICY) if policy is None else policy,
        ranks=Ranks(scope="global", rows="stay") if ranks == "stay" else ranks,
        scope=scope,
        callbacks=[noting(seen)],
    )
    run.train(resume_from_checkpoint=None if resume is None else str(folder / resume))
    return told(run, seen)


def trl(folder, *, accumulation=1, pool=8, mode="padded"):
    """TRL's trainer, on texts."""
    import test_trl
    from trl.trainer.sft_config import SFTConfig

    from uds_adapters.trl import UDSSFTTrainer

    seen, (rank, size) = Trained(), world()
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
        **test_trl.MODES[mode],
    )
    run = recording(UDSSFTTrainer, seen)(
        model=tiny.llama(),
        args=arguments,
        train_dataset=test_trl.data(mode),
        processing_class=test_trl.tokenizer(),
        policy=uds.UDS(**POLICY),
        ranks="global",
        scope="step",
        callbacks=[noting(seen)],
    )
    run.train()
    return told(run, seen)


def told(run: Any, seen: Trained) -> dict[str, Any]:
    entries = [entry for entry in run.state.log_history if "loss" in entry]
    return {
        "picks": seen.picks,
        "gradients": seen.gradients,
        "counts": seen.counts,
        "memory": digest(run.selector),
        "parameters": torch.cat([p.detach().flatten() for p in run.model.parameters()]),
        "losses": [entry["loss"] for entry in entries],
        "log": entries,
        "remembered": int(run.selector.history.state.memory.size),
    }
