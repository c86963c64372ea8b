"""Seconds and peak memory of `uds score` and `uds train` on many records.

    python benchmarks/streaming.py               # measures, prints a table and one JSON line
    python benchmarks/streaming.py --write       # and keeps the line in benchmarks/results/streaming.json

Synthetic records of about 250 characters, as JSON Lines and as one array of JSON; a random model of 0.2M parameters.
`uds score` uses `longest` and `uds train` `random`, policies that need no forward pass over the candidates, so that
what is measured is reading, encoding and choosing. The training is of 20 steps of 16 candidates, after all records have
been read and encoded. Each command runs in a process of its own; its peak memory is what is resident (Linux), libraries
included, and pages of mapped files that were read.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer

ROOT = Path(__file__).parents[1]
RESULTS = measure.RESULTS / "streaming.json"
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


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--write", action="store_true")
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


def measured(arguments: list[str], folder: Path) -> dict[str, float]:
    """Seconds and peak MiB of one `uds` command in a process of its own."""
    began = time.perf_counter()
    log = folder / "log"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "uds_adapters.lab", *arguments]
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(log.read_text(encoding="utf-8"))
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 1), "cpu_seconds": round(usage.ru_utime, 1), "mib": round(usage.ru_maxrss / 1024)}


def main() -> None:
    """Measure every size, command and kind of file."""
    options = parse()
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "model")
        for records in options.records:
            for suffix in ("jsonl", "json"):
                data = make_data(folder / f"data.{suffix}", records)
                for number, command in enumerate((SCORE, TRAIN)):
                    output = folder / f"{records}-{suffix}-{number}"
                    given = [*command, "--model", str(model), "--data", str(data), "--output", str(output)]
                    figures.append({"command": command[0], "file": suffix, "records": records})
                    figures[-1] |= {"megabytes": round(data.stat().st_size / 1e6)} | measured(given, folder)
                    print("{command:6} {file:6} {records:>9,} records {seconds:8} s {mib:6} MiB".format(**figures[-1]))
                data.unlink()
    line = json.dumps({"figures": figures, **measure.surroundings()})
    print(line)
    if options.write:
        RESULTS.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
