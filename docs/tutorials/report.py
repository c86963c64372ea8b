"""Reading the report of a comparison."""

# %%
# Whether selection helps depends on *your* model and data. `uds compare` measures it: it trains the same model from the
# same weights, with the same candidates in the same order, once for each policy and seed. This page runs the demo with
# few steps, generated data and a small generated model.

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp()) / "demo"
command = "demo --policy random --policy uds --steps 12 --records 300 --pretraining-steps 40 --seeds 2"
done = subprocess.run(
    [sys.executable, "-m", "uds_adapters.lab", *shlex.split(command), "--output", str(folder)],
    capture_output=True,
    text=True,
    check=True,
)
print(*sorted(file.name for file in folder.iterdir() if file.is_file()), sep="\n")

# %%
# On your own data that is `uds compare --model FOLDER --data train.jsonl --policy full --policy random --policy uds
# --seeds 3` ([all options](../pages/reference/command.md)).
#
# ## The report
#
# Open `report.html` in a browser: it is one file and needs no network. From top to bottom:
#
# ![The report of a demo: a verdict, a table, differences, and curves](../figures/report.png)
#
# 1. **Result.** The verdict names the better policy, the difference, and *what was held equal*. Below are results of
#    each policy, and the difference between policies for each seed. If its interval includes zero, these runs do not
#    show which is better.
# 2. **Learning.** Held-out loss against samples trained on, tokens, or seconds. The three can disagree, because
#    scoring takes time.
# 3. **Cost.** Quality against cost, and the time of each phase.
# 4. **Choices.** Scores of the chosen and the rest, how much policies agree, and properties of the chosen samples: if
#    they are mostly the longest, the policy acts as a length filter.
# 5. **Records.** A map of the data, and the text of every record with the policies that chose it: the quickest way to
#    see what a score prefers.
# 6. **Setup.** All options and versions.
#
# ## The numbers
#
# `results.json` contains all of it for your own scripts:

import json

results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
for run in results["runs"]:
    print(run["policy"], "seed", run["seed"], ":", run["samples"], "of", run["candidates"], "samples trained on")

# %%
# Every run lists the records that each step trained on. What fraction of them are near-duplicates of another record
# (the demo marks its own)?

records = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
for run in results["runs"]:
    chosen = [index for step in run["selected"] for index in step]
    repeated = sum(records[index]["repeated"] for index in chosen) / len(chosen)
    print(f"{run['policy']:7} seed {run['seed']}: {repeated:.0%} near-duplicates")

# %%
# Twelve steps of a tiny model prove nothing about either policy; they only show how to read a report. For measurements
# of UDS see [does it help](../pages/evidence.md).
