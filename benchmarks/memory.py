"""Peak memory of `uds compare`, and what `uds profile` predicts, each in a process of its own.

    python benchmarks/memory.py --model MODEL --data gsm8k/train.jsonl --prompt-field question --completion-field answer

Prints one line of JSON for each policy: the peak resident memory of a short comparison (two steps), the prediction, and
their ratio. With --lora only adapters train. The memory of full fine-tuning has a floor, which is printed: the process
before a model is loaded, and weights, gradients and the two moments of AdamW in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure

_UDS = [sys.executable, "-m", "uds_adapters.lab"]
_IMPORTS = "import uds_adapters.lab.comparison.experiment"
_SIZES = """
import sys
from pathlib import Path
from uds_adapters.lab.models import load_model, trainable, with_lora
model, rank = load_model(Path(sys.argv[1])), sys.argv[2]
trained, every = trainable(with_lora(model, rank=int(rank), seed=0) if rank else model)
print(every, trained)
"""  # in a process of its own: the peak of a child includes that of the process that started it


def peak_of(command: list[str]) -> tuple[int, str]:
    """Return the peak resident bytes of a process, and what it wrote to stdout."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            msg = f"{' '.join(command)} ended with exit code {process.returncode}"
            raise SystemExit(msg)
        output.seek(0)
        return usage.ru_maxrss * 1024, output.read().decode()


def compared(options: argparse.Namespace, shared: list[str], policy: str) -> int:
    """Return the peak of a comparison that has one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*_UDS, "compare", *shared, "--batch-size", str(options.batch_size), "--steps", str(options.steps)]
        command += ["--keep", str(options.keep), "--policy", policy, "--eval-limit", "16"]
        command += ["--output", str(Path(folder, "run")), "--json"]
        return peak_of(command)[0]


def predicted(options: argparse.Namespace, shared: list[str], policy: str) -> dict[str, int]:
    """Return the peaks that `uds profile` predicts, of a run of the policy and of one on all candidates."""
    command = [*_UDS, "profile", *shared, "--policy", policy, "--candidates", str(options.batch_size)]
    found: Any = json.loads(peak_of([*command, "--repeats", "1", "--json"])[1])
    (one,) = [p for p in found["predictions"] if p["keep"] == options.keep]
    return {policy: one["peak"], "full": one["full_peak"]}


def floor(options: argparse.Namespace) -> dict[str, int]:
    """Return the bytes that no run is below: of the process, and of the model."""
    numbers = peak_of([sys.executable, "-c", _SIZES, str(options.model), "8" if options.lora else ""])[1]
    every, trained = map(int, numbers.split())
    return {"process": peak_of([sys.executable, "-c", _IMPORTS])[0], "model": 4 * (every + 3 * trained)}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measure.data_options(parser)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=192)
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--keep", type=float, default=0.25, choices=(0.125, 0.25, 0.5))
    parser.add_argument("--policy", default="uds")
    parser.add_argument("--lora", action="store_true")
    options = parser.parse_args()
    shared = ["--model", str(options.model), "--data", str(options.data), "--threads", "1"]
    shared += ["--max-length", str(options.max_length), "--limit", str(options.limit)]
    for name in ("prompt_field", "completion_field"):
        if (value := getattr(options, name)) is not None:
            shared += [f"--{name.replace('_', '-')}", value]
    shared += ["--lora"] if options.lora else []
    print(json.dumps({"floor": floor(options)}), flush=True)
    predictions = predicted(options, shared, options.policy)
    for policy, bytes_ in predictions.items():
        peak = compared(options, shared, policy)
        print(
            json.dumps({"policy": policy, "peak": peak, "predicted": bytes_, "ratio": round(bytes_ / peak, 3)}),
            flush=True,
        )


if __name__ == "__main__":
    main()
