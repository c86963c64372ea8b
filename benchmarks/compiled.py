"""Features of candidates with and without `torch.compile`, the option `compile=True` of selectors.

    python benchmarks/compiled.py                 # prints a table and one JSON line
    python benchmarks/compiled.py --write         # and keeps the line in results/compiled.json

Through a prepared random head; of hidden states that are there, so without the model's own forward pass. The first call
of each graph is the time that it takes to make.
"""

import argparse
import json
import time
import warnings
from typing import Any

import measure
import torch

import uds_core as uds
from uds_adapters.scoring.compiled import CompiledExamine, examined

POLICIES = ("uds", "uds:method=polar", "diversityonly", "entropy", "maxloss")


def parse() -> argparse.Namespace:
    """What is measured, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", action="append", help=f"default: {', '.join(POLICIES)}")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--time", type=int, default=64)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="into results/")
    return parser.parse_args()


def main() -> None:
    """Measure, and print a table and a JSON line."""
    options = parse()
    torch.manual_seed(0)
    head = uds.Head(torch.randn(options.vocab, options.width, device=options.device))
    hidden = torch.randn(options.batch, options.time, options.width, device=options.device)
    labels = torch.randint(options.vocab, (options.batch, options.time), device=options.device)
    rows: dict[str, Any] = {}
    for name in options.policy or POLICIES:
        policy, compiled = uds.make_policy(name, keep=0.5), CompiledExamine()
        candidates = uds.Candidates(head(hidden), labels=labels)
        examined(candidates, policy)  # prepares the head
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Dynamo|.*functools.lru_cache")
            warnings.filterwarnings("error", "`compile=True` is without effect")
            compiled(candidates, policy)
        first = time.perf_counter() - start
        runs = {"as it is": lambda: examined(candidates, policy), "compiled": lambda: compiled(candidates, policy)}  # noqa: B023 - run here
        seconds = measure.in_turn(runs, repeat=15)
        rows[name] = {"ms": {kind: 1e3 * took for kind, took in seconds.items()}, "first_s": first}
        ms = rows[name]["ms"]
        print(f"{name:20}{ms['as it is']:9.2f}{ms['compiled']:9.2f} ms{first:8.1f} s", flush=True)
    given = {name: getattr(options, name) for name in ("batch", "time", "width", "vocab")}
    line = {"benchmark": "compiled", **given, "rows": rows, **measure.surroundings(options.device)}
    print("\n" + json.dumps(line))
    if options.write:
        measure.results("compiled", options.device).write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
