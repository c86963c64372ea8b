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
