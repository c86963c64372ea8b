"""What needs a GPU, in one call: tests, then figures at the head of a 7B model; each part's results are kept at once.

    .ci/gpu                          # all parts, at most 8 minutes
    .ci/gpu tests scoring            # some
    python benchmarks/gpu.py --device cpu --tiny --results DIR     # the same on a CPU, with tiny sizes

After each part the results so far are in `benchmarks/results/gpu_CARD.json`, with card, versions, date and commit; and
`docs/pages/gpu.md`, `docs/pages/backends.md` and `README.md` say what was run where, between marks in their text.
"""

import argparse
import datetime as dt
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import measure

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "pages" / "gpu.md", ROOT / "docs" / "pages" / "backends.md", ROOT / "README.md")
MINUTES = 8.0
TESTS = ("tests/core", "tests/policies", "tests/adapters/test_torch.py", "tests/adapters/test_transformers.py")
TINY_TESTS = ("tests/core/test_ledger.py",)


class Part(NamedTuple):
    """A command, and the most seconds that it may take."""

    command: list[str]
    seconds: float


def parse() -> argparse.Namespace:
    """What is run, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="default: all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU computes in seconds")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    parser.add_argument("--model", type=Path, help="folder of a model for `study`; without it, that part is left out")
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    parser.add_argument("--pages", type=Path, nargs="*", default=PAGES, help="with marks of what is written by this")
    return parser.parse_args()


def parts(options: argparse.Namespace) -> dict[str, Part]:
    """Return all parts, most wanted first."""
    device = ["--device", options.device]
    head = ["--width", "3584", "--vocab", "152064", "--time", "512"]
    model = ["--qwen7b", "--bf16", "--batch", "8", "--keep", "2", "--time", "512"]
    if options.tiny:
        head = ["--width", "64", "--vocab", "512", "--time", "16"]
        model = ["--width", "64", "--layers", "1", "--batch", "4", "--keep", "2", "--time", "8", "--vocab", "512"]
        model += ["--model", "none"]
    few = ["--repeat", "1"] if options.tiny else ["--repeat", "3"]
    half = ["--bf16", "--batch", "2" if options.tiny else "8"]
    python, here = sys.executable, Path(__file__).parent
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    tests += [*TINY_TESTS] if options.tiny else [*TESTS, "-k", "cuda or cupy or test_torch or test_transformers"]
    product = ["--product", "64"] if options.tiny else []
    found = {
        "tests": Part(tests, 150),
        "scoring": Part([python, f"{here}/scoring.py", *device, *head, *half, *few], 60),
        "step": Part([python, f"{here}/step.py", *device, *model, *few, "--only-random"], 120),
        "rates": Part([python, f"{here}/rates.py", *device, *head, *few, *product], 40),
        "policies": Part([python, f"{here}/policies.py", *device, *model, *few, "--only-random"], 90),
        "processes": Part([python, f"{here}/two_processes.py", *device], 60),
        "memory": Part([python, f"{here}/step.py", *device, *model, "--memory", "--only-random"], 60),
    }
    if options.model is not None:
        grid = [f"{here}/quality/run.py", f"{here}/quality/grid.yaml", "--model", str(options.model)]
        found["study"] = Part([python, *grid, "--block", "headline"], 480)
    return found


def run(part: Part, seconds: float) -> dict[str, Any]:
    """Run a part for at most `seconds`; return how it ended, and the figures of the last line that it printed."""
    began = time.perf_counter()
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    quiet |= {"TRL_EXPERIMENTAL_SILENCE": "1"}
    options: dict[str, Any] = {"cwd": ROOT, "env": os.environ | quiet, "capture_output": True, "text": True}
    try:
        done = subprocess.run(part.command, timeout=seconds, check=False, **options)
        printed = done.stdout + done.stderr
        outcome = "passed" if done.returncode == 0 else f"failed ({done.returncode})"
    except subprocess.TimeoutExpired as cut:
        some = (x.decode(errors="replace") if isinstance(x, bytes) else x or "" for x in (cut.stdout, cut.stderr))
        printed, outcome = "".join(some), f"cut after {seconds:.0f} s"
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    found: dict[str, Any] = {"outcome": outcome, "seconds": round(time.perf_counter() - began, 1)}
    if outcome != "passed":
        found["end"] = printed[-1500:]
    elif not lines:
        found["end"] = (printed.strip().splitlines() or [""])[-1]
    return found | {"figures": json.loads(lines[-1]) if lines else None}


def figures(result: dict[str, Any]) -> dict[str, str]:
    """Return the figures of a run that have a goal, as text; those of parts that gave none are left out."""
    found: dict[str, str] = {}
    known = {name: part["figures"]["rows"] for name, part in result["parts"].items() if part.get("figures")}
    if "step" in known:
        row = next(iter(known["step"].values()))
        found["`examine`, % of the candidates' forward"] = f"{100 * row['x_examine_over_backbone']:.2f}"
        found["a selecting step over its floor"] = f"{row['x_step_over_floor']:.3f}"
    if "scoring" in known:
        row = known["scoring"]["head route, prepared"]
        found["times faster than the authors' algorithm"] = f"{row['times_faster']:.0f}"
    for name, row in known.get("rates", {}).items():
        if "product" not in name:
            found[f"{name}, % of the bfloat16 rate"] = f"{100 * row['x_of_bfloat16']:.1f}"
    return found


GOALS = {
    "`examine`, % of the candidates' forward": "at most 1",
    "times faster than the authors' algorithm": "at least 300",
    "nuclear norm, polar, % of the bfloat16 rate": "at least 60",
    "preparation of a frozen head, % of the bfloat16 rate": "at least 60",
    "a selecting step over its floor": "at most 1.05",
}


def write_pages(pages: list[Path], results: Path) -> None:
    """Write what was run where between the marks of each page."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("gpu_*.json"))]
    texts = {"where": where(runs), "figures": table(runs)}
    for page in pages:
        before = page.read_text(encoding="utf-8")
        text = before
        for name, new in texts.items():
            text = between(f"<!-- gpu {name}: written by .ci/gpu -->", f"<!-- end of gpu {name} -->", text, new)
        if text != before:
            page.write_text(text, encoding="utf-8")


def between(begin: str, end: str, text: str, new: str) -> str:
    """Return the text with `new` between two marks; as it is where the first is missing."""
    before, mark, rest = text.partition(begin)
    return f"{before}{mark}\n{new}\n{end}{rest.partition(end)[2]}" if mark else text


def where(runs: list[dict[str, Any]]) -> str:
    """Return a line for each card: what passed there, when, and of which commit."""
    if not runs:
        return "Nothing was run on a GPU so far."
    lines = []
    for one in runs:
        ended = ", ".join(f"{name} {part['outcome']}" for name, part in one["parts"].items())
        about, sizes = one["surroundings"], " with tiny sizes" if one["tiny"] else ""
        made = f"{one['date']}, commit {about['commit']}, PyTorch {about['torch']}"
        lines.append(f"- {about['device']}{sizes}, {made}: {ended}.")
    return "\n".join(lines)


def table(runs: list[dict[str, Any]]) -> str:
    """Return the table of figures with a goal: a column for each card."""
    names = [one["surroundings"]["device"] for one in runs] or ["(no card so far)"]
    lines = ["| figure | goal | " + " | ".join(names) + " |", "|---|---" + "|---" * len(names) + "|"]
    found = [figures(one) for one in runs] or [{}]
    rows = {name: " | ".join(one.get(name, "") for one in found) for name in GOALS}
    return "\n".join([*lines, *(f"| {name} | {GOALS[name]} | {row} |" for name, row in rows.items())])


def main() -> None:
    """Run the parts in turn; keep the results after each."""
    options = parse()
    every = parts(options)
    if options.tiny:  # to see that all parts run, on any machine
        every = {name: part._replace(seconds=600) for name, part in every.items()}
    if unknown := [name for name in options.parts if name not in every]:
        sys.exit(f"no part {unknown[0]}: {', '.join(every)}")
    about = measure.surroundings(options.device)
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / f"gpu_{re.sub('[^a-z0-9]+', '_', about['device'].lower()).strip('_')}.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"parts": {}}
    result: dict[str, Any] = {"benchmark": "gpu", "tiny": options.tiny, "parts": known["parts"]}
    end = time.monotonic() + 60 * options.minutes
    for name in options.parts or every:
        left = end - time.monotonic()
        print(f"== {name}: {' '.join(every[name].command[1:])}", flush=True)
        late = {"outcome": "left out: no time", "seconds": 0}
        found = run(every[name], min(every[name].seconds, left)) if left > 5 else late
        print(f"   {found['outcome']}, {found['seconds']} s\n{found.get('end', '')}", flush=True)
        result["parts"][name] = found
        result |= {"date": dt.datetime.now(dt.timezone.utc).date().isoformat(), "surroundings": about}
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        write_pages(list(options.pages), options.results)
    sys.exit(any(part["outcome"].startswith("failed") for part in result["parts"].values()))


if __name__ == "__main__":
    main()
