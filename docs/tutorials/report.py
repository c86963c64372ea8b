"""Reading the report of a comparison."""

# %%
# Whether selection pays is a question about *your* model and data. `uds compare` answers it: the same model, from the
# same weights, with the same candidates in the same order, once for each policy and seed. Here it is the demo, with few
# steps: generated data, and a small model that is made on the spot.

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
# 1. **Result.** The verdict says who is better, by how much, and *at equal what*. Below it every policy in numbers, and
#    the difference between policies seed by seed. Where its interval includes zero, these runs do not tell who is
#    better.
# 2. **Learning.** Held-out loss against samples trained on, tokens, or seconds. The three can disagree: what a sample
#    is worth and what an hour is worth are two questions. Scoring is not free.
# 3. **Cost.** Quality against cost, and where the time goes.
# 4. **Choices.** Scores of the chosen and the rest, how much policies agree, and what the chosen have in common: when
#    they are mostly the longest, you are looking at a length filter.
# 5. **Records.** A map of the data, and every record with who chose it, to be read. Nothing else tells as quickly what
#    a score prefers.
# 6. **Setup.** All options and versions.
#
# ## The numbers
#
# `results.json` holds all of it for scripts of your own:

import json

results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
for run in results["runs"]:
    print(run["policy"], "seed", run["seed"], ":", run["samples"], "of", run["candidates"], "samples trained on")

# %%
# Every run tells which records each step trained on, so a choice can be looked up. Of those that are near-duplicates of
# another record (the demo marks its own), which share did each policy train on?

records = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
for run in results["runs"]:
    chosen = [index for step in run["selected"] for index in step]
    repeated = sum(records[index]["repeated"] for index in chosen) / len(chosen)
    print(f"{run['policy']:7} seed {run['seed']}: {repeated:.0%} near-duplicates")

# %%
# Twelve steps of a tiny model prove nothing about either policy: they show how to look. What is known so far about
# whether UDS helps is under [does it help](../pages/evidence.md).
