"""Two processes that select together on one device: with NCCL where it accepts that, else with Gloo on its tensors.

    python benchmarks/two_processes.py --device cuda

NCCL refuses two processes on one GPU in most versions; what it says is in the result.
"""

import argparse
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

import uds_core as uds


def parse() -> argparse.Namespace:
    """The device, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=3)
    return parser.parse_args()


def job(rank: int, backend: str, port: int, folder: str, options: argparse.Namespace) -> None:
    """Select and train a few steps, as one of two processes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from uds_adapters.torch import BatchSelector

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group(backend, rank=rank, world_size=2)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=97, num_attention_heads=2, max_position_embeddings=64, **sizes)
    model = LlamaForCausalLM(config).to(options.device)
    select = BatchSelector(model, uds.UDS(keep=0.5, dim=64, memory=32), ranks="global")
    generator, chosen = torch.Generator().manual_seed(rank), []
    for _ in range(options.steps):
        ids = torch.randint(1, 97, (8, 12), generator=generator).to(options.device)
        kept = select({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})
        model(**kept).loss.backward()
        model.zero_grad()
        assert select.last is not None
        chosen.append(select.last.indices.tolist())
    Path(folder, f"{rank}.json").write_text(json.dumps(chosen), encoding="utf-8")
    dist.destroy_process_group()


def outcome(backend: str, options: argparse.Namespace) -> str:
    """Return "agreed", or why not."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        try:
            spawn(job, (backend, port, folder, options), nprocs=2)
        except Exception as error:
            return " ".join(str(error).split()[-40:])
        chosen = [json.loads(Path(folder, f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    return "agreed" if chosen[0] == chosen[1] else f"chose differently: {chosen}"


def main() -> None:
    """Run with each backend, and print a JSON line."""
    options = parse()
    backends = ["gloo"] if options.device == "cpu" else ["nccl", "gloo"]
    found = {backend: outcome(backend, options) for backend in backends}
    print(json.dumps({"benchmark": "two_processes", "settings": vars(options), "rows": found}))
    if found["gloo"] != "agreed":
        raise SystemExit(1)


if __name__ == "__main__":
    main()
