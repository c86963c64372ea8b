"""Kernel launches and host reads of a selecting step, beside the model's own forward pass, for each policy.

    python benchmarks/launches.py                 # prints a table and one JSON line
    python benchmarks/launches.py --write         # and keeps the line in results/launches.json

Counted on the second device of the tests (`tests/support/second_device.py`), so that no GPU is needed: operations that
run a kernel, as PyTorch dispatches them, and transfers that the host waits for. A tiny Llama with a frozen head, a
batch of 8, of which half are chosen; the third step.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import measure

ROOT = Path(__file__).parents[1]


def parse() -> argparse.Namespace:
    """What is counted, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", action="append", help="only these; default: all")
    parser.add_argument("--write", action="store_true", help="into results/")
    return parser.parse_args()


def main() -> None:
    """Count, and print a table and a JSON line."""
    options = parse()
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]
    import every_policy
    import on_second_device

    names = options.policy or [name for name in every_policy.POLICIES if " " not in name]
    rows: dict[str, Any] = {}
    for name, step in on_second_device.steps(None, names=names).items():
        if step.error:
            sys.exit(f"{name}: {step.error}")
        rows[name] = {"launches": step.launches, "reads": sum(step.reads.values())}
        print(f"{name:20}{step.launches:8}{rows[name]['reads']:6}", flush=True)
    line = {"benchmark": "launches", "rows": rows, **measure.surroundings()}
    print("\n" + json.dumps(line))
    if options.write:
        measure.results("launches", "cpu").write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
