"""Processes spawned on this machine, as `torchrun` starts them: gloo, a free port, a hard limit of time."""

import datetime as dt
import faulthandler
import gc
import importlib
import multiprocessing
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

LIMIT = 240  # seconds: whatever hangs is killed and fails
PATIENCE = 60  # seconds a collective waits for the others, which may be slow where much else runs

# children are forked off a server that has imported what is slow to import
_context: Any = multiprocessing.get_context("forkserver")
_IMPORTED = ["torch", "torch.profiler", "transformers.trainer", "transformers.models.llama", "accelerate", "pytest"]
_IMPORTED += ["array_api_compat.numpy", "array_api_compat.torch", "uds_adapters.transformers"]
_context.set_forkserver_preload(_IMPORTED)


def run(
    job: Callable[..., Any],
    world: int,
    folder: Path,
    /,
    *,
    limit: float = LIMIT,
    patience: float = PATIENCE,
    imports: str = "",
    **options: Any,
) -> list[Any]:
    """What `job(folder, **options)` returns on each rank, or the exception that it raised; None where it was killed.

    `imports` is imported before the ranks meet: from then on they wait for one another.
    """
    folder.mkdir(exist_ok=True)
    results = [folder / f"result_{job.__name__}_{rank}.pickle" for rank in range(world)]
    for file in results:
        file.unlink(missing_ok=True)
        _trace(file).unlink(missing_ok=True)
    start = _Start(world, _free_port(), patience, time.monotonic() + limit, imports)
    children = [
        _context.Process(target=_child, args=(job, rank, start, results[rank], folder, options), daemon=True)
        for rank in range(world)
    ]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join(max(0.0, start.end - time.monotonic()))
        stuck = [rank for rank, child in enumerate(children) if child.is_alive()]
    finally:
        for child in children:
            child.kill()
    where = "\n".join(f"rank {rank}: {_told(_trace(results[rank]))}" for rank in stuck)
    assert not stuck, f"ranks {stuck} of {world} hung for {limit} s\n{where}"
    return [pickle.loads(file.read_bytes()) if file.is_file() else None for file in results]


def all_well(results: list[Any]) -> list[Any]:
    """The results, after making sure that no rank failed."""
    if any("tagged with cpu:0" in str(result) for result in results if isinstance(result, BaseException)):
        pytest.skip("this Trainer loads its optimizer on one CPU process only")
    for rank, result in enumerate(results):
        assert not isinstance(result, BaseException), f"rank {rank}:\n{vars(result).get('trace')}"
        assert result is not None, f"rank {rank} died"
    return results


class _Start(NamedTuple):
    """What all ranks are reported."""

    world: int
    port: int
    patience: float
    end: float
    imports: str


def _child(
    job: Callable[..., Any], rank: int, start: _Start, result: Path, folder: Path, options: dict[str, Any]
) -> None:
    gc.freeze()  # of what the server has imported nothing is garbage
    own, all_ = str(rank), str(start.world)
    os.environ |= {"RANK": own, "LOCAL_RANK": own, "WORLD_SIZE": all_, "LOCAL_WORLD_SIZE": all_}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(start.port), "OMP_NUM_THREADS": "1"}
    trace = _trace(result).open("w")  # where it hangs, should it
    faulthandler.dump_traceback_later(max(1.0, 0.9 * (start.end - time.monotonic())), file=trace)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if start.imports:
        importlib.import_module(start.imports)
    if start.world > 1:
        dist.init_process_group("gloo", timeout=dt.timedelta(seconds=start.patience))
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
    if start.world > 1 and not isinstance(found, Exception):
        dist.barrier()  # who leaves first would break the connections of the others
        dist.destroy_process_group()
    os._exit(0)


def _trace(result: Path) -> Path:
    return result.with_suffix(".trace")


def _told(trace: Path) -> str:
    return trace.read_text() if trace.is_file() else "not begun"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
