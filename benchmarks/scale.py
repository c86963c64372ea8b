"""What choosing together costs: measured on 2 and 4 processes, computed for 8 to 4,096.

    python benchmarks/scale.py                # measures, computes, prints tables and one JSON line
    python benchmarks/scale.py --write        # and keeps the line in benchmarks/results/scale.json
    python benchmarks/scale.py --plot         # draws docs/figures/scale from it (needs matplotlib)

A choice adds to a step: an all-gather of the features, t = a log2(W) + b (W - 1) m for messages of m bytes from each of
W ranks, and the choice itself from the pool of all, which every rank makes alike. a and b of this machine (gloo, local
sockets) are fitted to 2 processes and checked on 4, which take W / cores times as long where they share its cores;
those of a cluster are stated, as is its step. The choice is measured on one CPU thread, up to a pool of 65,536.
"""

import argparse
import json
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

import uds_core as uds

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
FIGURE = ROOT / "docs" / "figures" / "scale"
DIM, MEMORY = 1024, 1024
PER_RANK = (4, 16, 64, 256)  # candidates
POOLS = (64, 256, 1_024, 4_096, 16_384, 65_536)
RANKS = tuple(2**power for power in range(3, 13))


def parse() -> argparse.Namespace:
    """The stated network and step, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=2e-5, help="seconds of a hop between ranks")
    parser.add_argument("--bandwidth", type=float, default=1.25e10, help="bytes a second into a rank: 100 Gbit/s")
    parser.add_argument("--step", type=float, default=1.0, help="seconds of a training step on the cluster")
    parser.add_argument("--batch", type=int, default=16, help="candidates of each rank")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--plot", action="store_true")
    return parser.parse_args()


def features(number: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """What the default policy writes down of as many candidates."""
    generator = torch.Generator().manual_seed(seed)
    sketch = torch.randn(number, DIM, generator=generator)
    return {"sketch": sketch, "utility": torch.rand(number, generator=generator), "length": torch.ones(number)}


def gathering(repeat: int) -> list[dict[str, float]]:
    """Seconds and bytes of a gather, for some numbers of candidates; on each process, all alike."""
    from uds_adapters.ranks import Ranks

    found = []
    for number in PER_RANK:
        ranks, own = Ranks(), features(number, seed=dist.get_rank())
        rest: dict[str, Any] = {"tokens": torch.ones(number, dtype=torch.int64), "about": "", "history": 0}
        rest["batches"] = torch.zeros(number, dtype=torch.int64)
        ranks.gather(own, **rest)  # agrees on the size
        before = ranks.bytes
        ranks.gather(own, **rest)
        received, times = ranks.bytes - before, []
        for _ in range(repeat):
            dist.barrier()
            spent, began = ranks.seconds, time.perf_counter()
            ranks.gather(own, **rest)
            times.append((ranks.seconds - spent, time.perf_counter() - began))
        collective, whole = np.min(times, axis=0)
        found.append({"candidates": number, "bytes": received, "collective": collective, "seconds": whole})
    return found


def stepping(repeat: int) -> dict[str, float]:
    """Seconds of a step of a small model under DDP, and of the gather in it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from uds_adapters.torch import BatchSelector

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8_000, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4
    )
    model = torch.nn.parallel.DistributedDataParallel(LlamaForCausalLM(config))
    select = BatchSelector(model, uds.UDS(keep=0.25), ranks="global")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(dist.get_rank())
    rows = []
    for _ in range(repeat):
        ids = torch.randint(0, 8_000, (16, 64), generator=generator)
        dist.barrier()
        began = time.perf_counter()
        kept = select({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})
        (model(**kept, num_items_in_batch=select.tokens).loss * select.ranks.size).backward()
        optimizer.step()
        optimizer.zero_grad()
        metrics = select.metrics
        rows.append(
            (
                time.perf_counter() - began,
                metrics["scoring_seconds"],
                metrics["gathering_seconds"],
                metrics["gathered_bytes"],
            )
        )
    names = ("step", "scoring", "gathering", "bytes")
    return dict(zip(names, map(float, np.median(rows[1:], axis=0)), strict=True))


def _work(rank: int, world: int, port: int, repeat: int, file: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    found = {"gathers": gathering(repeat), "steps": stepping(max(4, repeat // 2))}
    if rank == 0:
        Path(file).write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def together(world: int, repeat: int) -> dict[str, Any]:
    """What `world` processes measure."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        processes.spawn(_work, (world, port, repeat, str(file)), nprocs=world)  # type: ignore[attr-defined]
        return json.loads(file.read_text(encoding="utf-8"))


def choosing(repeat: int) -> dict[str, list[float]]:
    """Seconds of a choice from pools of growing size, of all and of each rank's 16."""
    policy = uds.UDS(keep=0.25)
    found: dict[str, list[float]] = {"global": [], "rank": []}
    for number in POOLS:
        pool = features(number)
        state = policy.init(pool)
        state = state._replace(memory=state.memory.push(torch.randn(MEMORY, DIM)))
        for scope, groups in (("global", None), ("rank", torch.arange(number) // 16)):
            turns = max(1, min(repeat, 4_096 // number))
            spent = measure.seconds(lambda: policy.choose(state, pool, groups=groups), repeat=turns)  # noqa: B023
            found[scope].append(spent)
    return found


def fitted(gathers: list[dict[str, float]], world: int) -> tuple[float, float]:
    """Latency a and seconds a byte b of t = a log2(W) + b (W - 1) m."""
    bytes_ = np.array([row["bytes"] * (world - 1) / world for row in gathers])
    times = np.array([row["collective"] for row in gathers])
    columns = np.stack([np.full_like(bytes_, np.log2(world)), bytes_], 1) / times[:, None]  # relative errors
    latency, per_byte = np.linalg.lstsq(columns, np.ones_like(times), rcond=None)[0]
    return float(latency), float(per_byte)


def predicted(world: int, message: float, latency: float, per_byte: float) -> float:
    """Seconds of an all-gather of `message` bytes from each of `world` ranks."""
    return float(latency * np.log2(world) + per_byte * (world - 1) * message)


def crowd(world: int) -> float:
    """How many processes share a core of this machine."""
    return max(1.0, world / (os.cpu_count() or 1))


def table(options: argparse.Namespace, choice: dict[str, list[float]], row_bytes: float) -> list[dict[str, float]]:
    """Computed seconds of selection's parts, for growing numbers of ranks."""
    rows = []
    for world in RANKS:
        pool = world * options.batch
        gather = predicted(world, options.batch * row_bytes, options.latency, 1 / options.bandwidth)
        row = {"ranks": world, "pool": pool, "bytes": pool * row_bytes, "gather": gather}
        for scope, seconds in choice.items():
            row[scope] = float(np.exp(np.interp(np.log(pool), np.log(POOLS), np.log(seconds))))
            row[f"{scope}_share"] = (gather + row[scope]) / options.step
        rows.append(row)
    return rows


def report(line: dict[str, Any], options: argparse.Namespace) -> None:
    """Tables for people."""
    print(f"gloo on this machine: a = {1e3 * line['latency']:.2f} ms, b = 1 / {1e-9 / line['per_byte']:.2f} GB/s")
    print(f"{'ranks':>6}{'each':>6}{'KiB':>9}{'measured ms':>13}{'computed ms':>13}")
    for row in line["checks"]:
        cells = f"{row['ranks']:6}{row['candidates']:6}{row['bytes'] / 1024:9.0f}{1e3 * row['collective']:13.2f}"
        print(cells + f"{1e3 * row['computed']:13.2f}")
    print("\na step of 16 candidates of 64 tokens a rank, 4 layers, 256 wide, DDP; milliseconds")
    for world, row in line["steps"].items():
        parts = ", ".join(f"{name} {1e3 * row[name]:.1f}" for name in ("step", "scoring", "gathering"))
        print(f"  {world} processes: {parts} ({row['gathering'] / row['step']:.1%}), {row['bytes'] / 1024:.0f} KiB")
    print(f"\nstated: {options.latency:.0e} s a hop, {options.bandwidth:.2e} B/s, a step of {options.step:g} s")
    print(f"{'ranks':>6}{'pool':>8}{'MiB':>8}{'gather ms':>11}{'choose ms, global':>19}{'rank':>9}{'of the step':>13}")
    for row in line["table"]:
        print(
            f"{row['ranks']:6,}{row['pool']:8,}{row['bytes'] / 2**20:8.1f}{1e3 * row['gather']:11.2f}"
            f"{1e3 * row['global']:19.1f}{1e3 * row['rank']:9.1f}{row['global_share']:13.1%}"
        )


def plot() -> None:
    """Computed seconds against ranks, and computed against measured."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "uds", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    line = json.loads(RESULTS.read_text(encoding="utf-8"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    ranks = [row["ranks"] for row in line["table"]]
    for name, label, colour in (
        ("gather", "all-gather, 100 Gbit/s", "#0072b2"),
        ("global", "choice, global (one CPU thread)", "#e69f00"),
        ("rank", "choice, rank (one CPU thread)", "#d55e00"),
    ):
        left.plot(ranks, [row[name] for row in line["table"]], marker="o", ms=3, color=colour, label=label)
    left.axhline(0.1 * line["settings"]["step"], color="#888888", ls=":", lw=1)
    left.text(ranks[0], 0.11 * line["settings"]["step"], "a tenth of a step of 1 s", color="#666666", fontsize=8)
    left.set(xscale="log", yscale="log", xlabel="ranks, 16 candidates each", ylabel="seconds a step")
    left.set_xticks(ranks[::3], [f"{number:,}" for number in ranks[::3]])
    left.legend(frameon=False, fontsize=8)
    for world, colour in ((2, "#0072b2"), (4, "#d55e00")):
        rows = [row for row in line["checks"] if row["ranks"] == world]
        sizes = [row["bytes"] for row in rows]
        right.plot(sizes, [1e3 * row["collective"] for row in rows], "o", color=colour, label=f"{world}, measured")
        right.plot(sizes, [1e3 * row["computed"] for row in rows], color=colour, lw=1, label=f"{world}, computed")
    right.set(xscale="log", yscale="log", xlabel="bytes received by a rank", ylabel="milliseconds of a gather")
    right.set_title("processes on one machine; the fit is that of 2", fontsize=9)
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(FIGURE.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(FIGURE.with_suffix(".png"), dpi=150)


def main() -> None:
    """Measure, compute and print; or draw."""
    options = parse()
    if options.plot:
        plot()
        return
    torch.set_num_threads(1)
    found = {world: together(world, options.repeat) for world in (2, 4)}
    latency, per_byte = fitted(found[2]["gathers"], 2)
    checks = [
        {"ranks": world, **row, "computed": crowd(world) * predicted(world, row["bytes"] / world, latency, per_byte)}
        for world, measured in found.items()
        for row in measured["gathers"]
    ]
    largest = found[2]["gathers"][-1]
    row_bytes = largest["bytes"] / 2 / largest["candidates"]
    choice = choosing(options.repeat)
    line = {
        "benchmark": "scale",
        "settings": {name: getattr(options, name) for name in ("latency", "bandwidth", "step", "batch", "repeat")},
        "latency": latency,
        "per_byte": per_byte,
        "checks": checks,
        "steps": {str(world): measured["steps"] for world, measured in found.items()},
        "choice": {"pools": POOLS, **choice},
        "table": table(options, choice, row_bytes),
        **measure.surroundings(),
    }
    report(line, options)
    print("\n" + json.dumps(line))
    if options.write:
        RESULTS.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
