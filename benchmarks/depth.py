"""Scores and near-duplicates at a layer: what is left of those at full depth, and what a pass costs.

    python benchmarks/depth.py --model MODEL --data train.jsonl --prompt-field question --completion-field answer

For each depth one line of JSON. Of utility, nuclear norm per token, loss and entropy: the selection differential that
is left, which is the mean final score of the quarter that the scores at that depth choose, less that of all samples, as
a fraction of what the final scores themselves reach. Of near-duplicates, copies of the samples with a tenth of the
tokens replaced: the fraction whose nearest sketch is the original's. And the seconds of a pass relative to a whole one,
of the fastest batch each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import measure
import torch

import uds_core as uds
from uds_adapters.lab.data.fields import Fields
from uds_adapters.lab.data.source import Source
from uds_adapters.lab.training.task import prepare
from uds_adapters.scoring.scorer import Scorer

_REPLACED = 0.1
_KEPT = 0.25


def near_duplicates(examples: Sequence[Any], seed: int) -> list[Any]:
    """Return a copy of each example with some tokens replaced by those of others."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.tensor([word for example in examples for word in example["input_ids"]])
    copies = []
    for example in examples:
        ids, labels = torch.tensor(example["input_ids"]), torch.tensor(example["labels"])
        replaced = torch.rand(len(ids), generator=generator) < _REPLACED
        other = words[torch.randint(len(words), (len(ids),), generator=generator)]
        ids = torch.where(replaced, other, ids)
        labels = torch.where((labels != -100) & replaced, other, labels)
        copies.append({**example, "input_ids": ids.tolist(), "labels": labels.tolist()})
    return copies


class Several:
    """The features of several policies, from one pass."""

    needs = uds.Needs()

    def examine(self, candidates: uds.Candidates, /) -> uds.Features:
        """Return the features of all."""
        policies = (uds.UDS(keep=_KEPT), uds.MaxLoss(keep=_KEPT), uds.Entropy(keep=_KEPT))
        return {name: value for policy in policies for name, value in policy.examine(candidates).items()}


def features(scorer: Scorer, batches: list[Any]) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Return scores and sketches of all samples, and the seconds of the pass of each batch."""
    found: list[dict[str, torch.Tensor]] = []
    seconds = []
    several: Any = Several()
    for batch in batches:
        views = scorer.view(batch)
        began = time.perf_counter()
        scorer.transformation(views)  # a pass, and nothing else
        seconds.append(time.perf_counter() - began)
        found.append(dict(scorer.examine(views, several)))
    every = {name: torch.cat([one[name] for one in found]).float() for name in found[0]}
    every["per_token"] = every["utility"] / every["length"].sqrt()
    return every, seconds


def differential(scores: torch.Tensor, final: torch.Tensor) -> float:
    """Return the selection differential of `scores` as a fraction of that of the `final` ones."""
    number = round(_KEPT * len(final))

    def gain(by: torch.Tensor) -> float:
        return float(final[by.argsort(descending=True)[:number]].mean() - final.mean())

    return gain(scores) / gain(final)


def recall(sketches: torch.Tensor) -> float:
    """Return the fraction of copies, the second half, whose nearest other sketch is the original's."""
    distances = torch.cdist(sketches.double(), sketches.double())
    distances.fill_diagonal_(torch.inf)
    number = len(sketches) // 2
    return float((distances[number:].argmin(1) == torch.arange(number)).double().mean())


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measure.data_options(parser)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    options = parser.parse_args()
    fields = Fields(prompt=options.prompt_field, completion=options.completion_field)
    source = Source(model=options.model, data=options.data, holdout=0.0, fields=fields, limit=options.samples)
    task = prepare(Source(**{**vars(source), "max_length": options.max_length}), seed=0)
    examples = [*task.train, *near_duplicates(task.train, 0)]
    batches = [
        {name: value for name, value in task.collator(examples[i : i + options.batch_size]).items() if name != "index"}
        for i in range(0, len(examples), options.batch_size)
    ]
    model = task.load_model().requires_grad_(False).eval()
    layers = model.config.get_text_config().num_hidden_layers
    depths = sorted({max(1, round(fraction * layers)) for fraction in options.fractions} | {layers})
    features(Scorer(model), batches[:1])  # libraries load, and the head is prepared
    final, whole = features(Scorer(model), batches)
    for depth in depths:
        got, seconds = (final, whole) if depth == layers else features(Scorer(model, depth=depth), batches)
        names = ("utility", "per_token", "loss", "entropy")
        half = len(task.train)
        line = {
            "depth": depth,
            "layers": layers,
            **{name: round(differential(got[name][:half], final[name][:half]), 2) for name in names if name in got},
            "near_duplicates": round(recall(got["sketch"]), 3),
            "seconds": round(min(seconds) / min(whole), 2),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
