"""Several processes on this machine, as `torchrun` starts them: gloo, a free port, a hard limit of time."""

import datetime as dt
import multiprocessing
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LIMIT = 120  # seconds: whatever hangs is killed and fails
PATIENCE = 20  # seconds a collective waits for the others

# children are forked off a server that has imported what is slow to import
_context: Any = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "transformers.trainer", "transformers.models.llama", "accelerate"])


def run(job: Callable[..., Any], world: int, folder: Path, /, *, limit: float = LIMIT, **options: Any) -> list[Any]:
    """What `job(folder, **options)` returns on each rank, or the exception that it raised; None where it was killed."""
    folder.mkdir(exist_ok=True)
    port, results = _free_port(), [folder / f"result_{job.__name__}_{rank}.pickle" for rank in range(world)]
    for file in results:
        file.unlink(missing_ok=True)
    children = [
        _context.Process(target=_child, args=(job, rank, world, port, results[rank], folder, options), daemon=True)
        for rank in range(world)
    ]
    for child in children:
        child.start()
    end = time.monotonic() + limit
    try:
        for child in children:
            child.join(max(0.0, end - time.monotonic()))
        stuck = [rank for rank, child in enumerate(children) if child.is_alive()]
    finally:
        for child in children:
            child.kill()
    assert not stuck, f"ranks {stuck} of {world} hung for {limit} s"
    return [pickle.loads(file.read_bytes()) if file.is_file() else None for file in results]


def all_well(results: list[Any]) -> list[Any]:
    """The results, after making sure that no rank failed."""
    if any("tagged with cpu:0" in str(result) for result in results if isinstance(result, BaseException)):
        pytest.skip("this Trainer loads its optimizer on one CPU process only")
    for rank, result in enumerate(results):
        assert not isinstance(result, BaseException), f"rank {rank}:\n{vars(result).get('trace')}"
        assert result is not None, f"rank {rank} died"
    return results


def _child(
    job: Callable[..., Any], rank: int, world: int, port: int, result: Path, folder: Path, options: dict[str, Any]
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", timeout=dt.timedelta(seconds=PATIENCE))
    try:
        found = job(folder, **options)
    except Exception as error:  # the parent asks for it
        found = error
        found.__dict__["trace"] = traceback.format_exc()
    unfinished = result.with_suffix(".tmp")
    try:
        unfinished.write_bytes(pickle.dumps(found))
    except Exception:
        unfinished.write_bytes(pickle.dumps(RuntimeError(repr(found))))
    unfinished.rename(result)
    if world > 1 and not isinstance(found, Exception):
        dist.barrier()  # who leaves first would break the connections of the others
        dist.destroy_process_group()
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
