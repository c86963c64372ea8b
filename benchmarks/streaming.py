"""Seconds and peak memory of `uds score` and `uds train` on many records.

    python benchmarks/streaming.py               # measures, prints a table and one JSON line
    python benchmarks/streaming.py --write       # and appends the line to benchmarks/results/streaming.jsonl
    python benchmarks/streaming.py --commands choose --records 50000 200000 --rounds 16

Synthetic records of about 250 characters, as JSON Lines and as one array of JSON; a random model of 0.2M parameters.
`uds score` uses `longest` and `uds train` `random`, policies that need no forward pass over the candidates, so that
what is measured is reading, encoding and choosing. The training is of 20 steps of 16 candidates, after all records have
been read and encoded. `choose` is the last part of `uds score --policy uds --keep 0.1`: from finished windows of
synthetic features, sketches of 1,024 numbers among them, to the choice; no model runs.

Each command runs in a process of its own. `mib` is the peak of what is resident (Linux), libraries included, and pages
of mapped files, which the system takes back where it needs room; `anonymous_mib` the peak without these, read 20 times
a second.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

import uds_core as uds
from uds_adapters.lab.data.summary import Summary
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer
from uds_adapters.lab.free_memory import map_large_blocks
from uds_adapters.lab.score import choose as choosing
from uds_adapters.lab.score import output
from uds_adapters.lab.score.window_store import ScoredRecords, ScoredWindow, WindowStore

ROOT = Path(__file__).parents[1]
RESULTS = measure.RESULTS / "streaming.jsonl"
WORDS = [
    "the",
    "of",
    "a",
    "in",
    "to",
    "and",
    "is",
    "it",
    "that",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
]
SCORE = ["score", "--policy", "longest", "--keep", "0.1", "--threads", "1"]
TRAIN = ["train", "--policy", "random", "--steps", "20", "--eval-limit", "64", "--threads", "1"]
COMMANDS = {"score": SCORE, "train": TRAIN, "choose": []}
FILES = ("jsonl", "json")
WINDOW, DIM, CLUSTERS = 512, 1024, 1000


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES), help="that `score` and `train` read")
    parser.add_argument("--rounds", type=int, default=2, help="of `choose`; the time grows with them")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--choose-from", type=Path, help=argparse.SUPPRESS)  # in the process that is measured
    return parser.parse_args()


def make_model(folder: Path) -> Path:
    """Write a small random model and its tokenizer."""
    tokenizer = build_tokenizer([" ".join(WORDS), "Question 0123456789:"])
    build_model(tokenizer, seed=0, width=64, layers=2).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_data(file: Path, records: int) -> Path:
    """Write synthetic records, as lines or, with the suffix `.json`, as an array."""
    generator = random.Random(0)
    begin, between, end = ("[\n", ",\n", "\n]\n") if file.suffix == ".json" else ("", "\n", "\n")
    with file.open("w", encoding="utf-8") as stream:
        for number in range(records):
            prompt = f"Question {number}: {' '.join(generator.choices(WORDS, k=20))}"
            record = {"prompt": prompt, "completion": " ".join(generator.choices(WORDS, k=30))}
            stream.write((between if number else begin) + json.dumps(record))
        stream.write(end)
    return file


def make_windows(folder: Path, records: int) -> Path:
    """Write windows of synthetic features of UDS, as `uds score` does: clusters of sketches."""
    store, generator = WindowStore(folder, {"records": records}), np.random.default_rng(0)
    store.claim(write=True)
    centres = generator.normal(size=(CLUSTERS, DIM)).astype(np.float32)
    for number, start in enumerate(range(0, records, WINDOW)):
        record = np.arange(start, min(start + WINDOW, records))
        few = np.full(len(record), 64, dtype=np.int32)
        sketch = generator.normal(size=(len(record), DIM)).astype(np.float32) / 4
        features = {
            "sketch": torch.from_numpy(sketch + centres[generator.integers(CLUSTERS, size=len(record))]),
            "length": torch.full((len(record),), 64.0),
            "utility": torch.from_numpy(generator.gamma(9.0, size=len(record)).astype(np.float32)),
        }
        rows = ScoredRecords(record, record + 1, few, few, np.full(len(record), "", dtype=object))
        store.save(number, ScoredWindow(rows=rows, features=features, summary=Summary(length=64)))
    return folder


def choose_from(folder: Path, records: int, rounds: int) -> None:
    """Choose a tenth of the windows in `folder`, and write the table: as `uds score` does after scoring."""
    torch.set_num_threads(1)
    map_large_blocks()
    store = WindowStore(folder, {"records": records})
    pool = store.pool(-(-records // WINDOW))
    choice = choosing.choose(uds.UDS(), pool.features, best=records // 10, rounds=rounds, in_place=True)
    output.save(folder / "scores.parquet", output.table(pool, choice, about=store.about))


def measured(arguments: list[str], folder: Path) -> dict[str, float]:
    """Seconds and peak MiB of a Python command in a process of its own."""
    began, peak = time.perf_counter(), {"VmHWM": 0, "RssAnon": 0}
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, *arguments], stdout=stream, stderr=subprocess.STDOUT)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = {name: max(kib, resident_kib(process.pid, name)) for name, kib in peak.items()}
            time.sleep(0.05)
    _, status, usage = ended
    if status:
        sys.exit(log.read_text(encoding="utf-8"))
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(usage.ru_utime, 1),
        "mib": round(peak["VmHWM"] / 1024),
        "anonymous_mib": round(peak["RssAnon"] / 1024),
    }


def resident_kib(process: int, name: str) -> int:
    """Resident memory of a process, `VmHWM` or `RssAnon`; 0 where it has just ended."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def figures_of(command: str, records: int, suffix: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one command on so many records."""
    known = {"command": command, "file": suffix, "records": records}
    if command == "choose":
        windows = make_windows(folder / "windows", records)
        size = sum(file.stat().st_size for file in windows.iterdir())
        given = ["--choose-from", str(windows), "--records", str(records), "--rounds", str(options.rounds)]
        found = measured([__file__, *given], folder)
        shutil.rmtree(windows)
        return {**known, "rounds": options.rounds, "megabytes": round(size / 1e6), **found}
    data = folder / f"data{records}.{suffix}"
    if not data.exists():
        make_data(data, records)
    files = ["--model", str(folder / "model"), "--data", str(data), "--output", str(folder / f"{data.name}-{command}")]
    found = measured(["-m", "uds_adapters.lab", *COMMANDS[command], *files], folder)
    return {**known, "megabytes": round(data.stat().st_size / 1e6), **found}


def main() -> None:
    """Measure every size, command and kind of file."""
    options = parse()
    if options.choose_from is not None:
        choose_from(options.choose_from, options.records[0], options.rounds)
        return
    figures = []
    line = (
        "{command:6} {file:7} {records:>9,} records {cpu_seconds:8} s of CPU {mib:6} MiB, {anonymous_mib:6} anonymous"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        for records, command in itertools.product(options.records, options.commands):
            for suffix in ("windows",) if command == "choose" else options.files:
                figures.append(figures_of(command, records, suffix, folder, options))
                print(line.format(**figures[-1]), flush=True)
    line = json.dumps({"options": sys.argv[1:], "figures": figures, **measure.surroundings()})
    print(line)
    if options.write:
        with RESULTS.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


if __name__ == "__main__":
    main()
