"""Folders of results as `uds compare` writes them, with numbers that look like those of a real comparison."""

import json
import math
import random
from pathlib import Path

from uds_adapters.audit import Audit
from uds_adapters.lab.demo import instructions

KEEP, BATCH = 0.25, 16
POLICIES = ("full", "random", "longest", "uds:alpha=auto")


def write(
    folder: Path,
    /,
    *,
    policies=POLICIES,
    seeds=(0, 1),
    steps=24,
    records=300,
    measured=True,
    audits=True,
    chart=True,
    preview=True,
) -> Path:
    """A folder with results.json and audits; each part can be missing, as it may be in a real one."""
    (folder / "runs").mkdir(parents=True)
    items = instructions.instructions(records, seed=1, repeated=0.2, wrong=0.1)
    runs = [_run(folder, p, s, steps, items, measured, audits) for s in seeds for p in policies]
    summary = [_summary([run for run in runs if run["policy"] == policy], items) for policy in policies]
    results = {
        "schema": 2,
        "command": "uds compare --model models/small --data data/train.jsonl --seeds 2 </script><b>",
        "configuration": {
            "model": "models/small",
            "data": "data/train.jsonl",
            "keep": KEEP,
            "steps": steps,
            "limit": None,
        },
        "versions": {"python": "3.12.1", "torch": "2.13.0", "device": "CPU"},
        "verdict": f"{policies[-1]} is <better> than random by 0.08 ± 0.02 nats at equal samples.",
        "summary": summary,
        "comparisons": _comparisons(policies, seeds) if measured and len(seeds) > 1 else [],
        "runs": runs,
        "records": [_record(n, item, items) for n, item in enumerate(items)],
        "map": _map(items) if chart else None,
        "preview": _preview(items) if preview else None,
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def text(item) -> str:
    return f"{item.prompt}\n{item.completion}"


def _run(folder, policy, seed, steps, items, measured, audits):
    draw = random.Random(f"{policy} {seed}")
    order = random.Random(seed)
    name = f"runs/{policy.replace(':', '-').replace('=', '-')}-seed{seed}.audit.jsonl"
    selected = []
    with Audit(folder / name) as audit:
        for step in range(steps):
            candidates = order.sample(range(len(items)), BATCH)
            parts = _parts(policy, step / steps, [items[i] for i in candidates], draw)
            number = BATCH if policy == "full" else round(KEEP * BATCH)
            best = sorted(range(BATCH), key=lambda n, score=parts["score"]: -score[n])[:number]
            selected.append([candidates[n] for n in best])
            if audits and policy not in ("full", "random"):
                audit.record(step, candidates, parts, best, alpha=0.5)
    recorded = audits and policy not in ("full", "random")
    samples = sum(map(len, selected))
    seconds = {"scoring": 0.11 * steps if recorded else 0.0, "forward_backward": 0.02 * samples, "rest": 0.01 * steps}
    seconds["total"] = sum(seconds.values())
    return {
        "policy": policy,
        "seed": seed,
        "steps": steps,
        "candidates": steps * BATCH,
        "samples": samples,
        "tokens": {
            "candidates": 2000,
            "forwarded_for_scoring": 20 * steps * BATCH * recorded,
            "forwarded_for_training": 20 * samples,
            "trained": 9 * samples,
        },
        "seconds": {**seconds, "evaluation": 2.0},
        "evaluations": _evaluations(policy, steps, samples, seconds["total"], draw) if measured else [],
        "selected": selected,
        "audit": name if recorded else None,
    }


def _parts(policy, progress, items, draw):
    utility = [math.sqrt(len(text(i))) * (1 - 0.4 * progress) + draw.gauss(0, 0.4) for i in items]
    diversity = [1.5 - progress + draw.gauss(0, 0.3) - 0.6 * i.repeated for i in items]
    if policy == "random":
        return {"score": [draw.random() for _ in items]}
    if policy == "longest":
        return {"score": [float(len(text(i))) for i in items]}
    score = [u + d for u, d in zip(utility, diversity, strict=True)]
    return {"score": score, "utility": utility, "diversity": diversity}


def _evaluations(policy, steps, samples, seconds, draw):
    gain = {"full": 1.9, "random": 1.35, "longest": 1.3}.get(policy, 1.5)
    off = draw.gauss(0, 0.03)
    made = []
    for n in range(9):
        part = n / 8
        loss = 3.6 - (gain + off) * (1 - math.exp(-3 * part)) + (draw.gauss(0, 0.008) if n else 0)
        made.append(
            {
                "step": round(part * steps),
                "samples": round(part * samples),
                "tokens": round(9 * part * samples),
                "seconds": part * seconds,
                "loss": loss,
                "accuracy": 0.25 + 0.2 * (3.6 - loss),
                "exact_match": None,
            }
        )
    return made


def _summary(runs, items):
    chosen = [items[i] for run in runs for step in run["selected"] for i in step]
    losses = [run["evaluations"][-1]["loss"] for run in runs if run["evaluations"]]

    def mean(values):
        values = list(values)
        return sum(values) / len(values) if values else None

    several = len(losses) > 1
    return {
        "policy": runs[0]["policy"],
        "seeds": len(runs),
        "loss_before": 3.6 if losses else None,
        "loss": mean(losses),
        "spread": max(losses) - min(losses) if several else None,
        "interval": [min(losses), max(losses)] if several else None,
        "accuracy": mean(run["evaluations"][-1]["accuracy"] for run in runs if run["evaluations"]),
        "exact_match": None,
        "samples": mean(run["samples"] for run in runs),
        "tokens": {name: mean(run["tokens"][name] for run in runs) for name in runs[0]["tokens"]},
        "seconds": {name: mean(run["seconds"][name] for run in runs) for name in runs[0]["seconds"]},
        "flagged": {flaw: mean(getattr(item, flaw) for item in chosen) for flaw in instructions.FLAWS},
    }


def _comparisons(policies, seeds):
    sides = {"uds:alpha=auto": (-0.08, "policy"), "longest": (0.02, None), "full": (-0.4, "policy")}
    return [
        {
            "policy": policy,
            "rival": "random",
            "metric": metric,
            "difference": sign * sides[policy][0],
            "low": sign * sides[policy][0] - 0.03,
            "high": sign * sides[policy][0] + 0.03,
            "seeds": len(seeds),
            "budget": "samples",
            "better": sides[policy][1],
        }
        for metric, sign in (("loss", 1), ("accuracy", -0.2))
        for policy in policies
        if policy in sides
    ]


def _record(number, item, items):
    original = next((n for n in range(number) if items[n].completion == item.completion), None)
    return {
        "line": number + 1,
        "text": text(item),
        "length": len(text(item)) // 2,
        "trained": len(item.completion) // 2 + 1,
        "flags": {flaw: getattr(item, flaw) for flaw in instructions.FLAWS},
        "duplicate_of": original if item.repeated else None,
    }


def _preview(items):
    samples = [
        {
            "place": f"train.jsonl:{number}",
            "format": "prompt-completion",
            "pieces": [
                {"text": f"<s>{item.prompt}\n", "trained": False},
                {"text": f"{item.completion}</s>", "trained": True},
            ],
            "tokens": len(text(item)) // 2,
            "trained": len(item.completion) // 2 + 1,
            "cut": 0,
            "repeats": None,
            "similarity": 0.0,
            "left_out": None,
        }
        for number, item in enumerate(items[:4], start=1)
    ]
    numbers = dict.fromkeys(("tokens", "trained", "median", "longest", "cut", "near_duplicates", "equal"), 7)
    return {
        **numbers,
        "records": len(items),
        "more": False,
        "max_length": 512,
        "formats": [{"format": "prompt-completion", "records": len(items), "used": ["prompt", "completion"]}],
        "left_out": [{"reason": "with an empty completion", "records": 2, "places": ["train.jsonl:9"]}],
        "notes": ["Not part of the text: the field <'id'>."],
        "samples": samples,
    }


def _map(items):
    draw = random.Random(0)
    middle = {"arithmetic": (-2, 0), "units": (2, -1), "strings": (0.5, 2)}
    shown = range(0, len(items), 2)
    x, y = ([middle[items[n].kind][axis] + draw.gauss(0, 0.6) for n in shown] for axis in (0, 1))
    return {"x": x, "y": y, "record": list(shown)}
