"""What a selecting training step costs: against its floor, against training on all, and against the authors' way.

    python benchmarks/step.py                 # measures, prints tables and one JSON line
    python benchmarks/step.py --write         # and keeps the line in results/step.json
    python benchmarks/step.py --device cuda --bf16 --width 896 --layers 24 --time 512 --write    # step_cuda.json
    python benchmarks/step.py --plot          # draws docs/figures/step from it (needs matplotlib)

The floor of a step on K of B candidates is B f + K (f' + b): f a forward through the backbone, f' one with head and
loss, b its backward; all measured in this run, on the same batch. Optimizer steps are left out everywhere, so a head
that trains does not move here: its preparation is measured beside, and a hundredth of it counted in each step. The
authors' algorithm gets its samples one by one, for its Fourier transforms of a whole batch would need 20 GB here. Two
models: a pretrained one on worked answers of GSM8K, where it is at hand, and a random Qwen2 with a vocabulary of
151,936.
"""

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import torch
from authors import Authors

import uds_core as uds

ROOT = Path(__file__).parents[1]
PREPARED_FOR = 100  # steps
SHARED = ROOT.parent / "shared"
FIGURE = ROOT / "docs" / "figures" / "step"
Batch = dict[str, torch.Tensor]
VOCAB = 151_936
QWEN7B = {
    "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4,
}  # fmt: skip


class Looking:
    """A policy that writes down lengths: what is left of `examine` is the scoring pass."""

    needs = uds.Needs()

    def examine(self, candidates: uds.Candidates, /) -> uds.Features:
        """Lengths."""
        return {"length": candidates.lengths()}

    init: Any = None
    choose: Any = None


def parse() -> argparse.Namespace:
    """What is measured, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "textbook4m")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "gsm8k" / "train.jsonl")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--keep", type=int, default=4)
    parser.add_argument("--time", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--width", type=int, default=256, help="of the random model")
    parser.add_argument("--layers", type=int, default=4, help="of the random model")
    parser.add_argument("--bf16", action="store_true", help="weights in bfloat16")
    parser.add_argument("--vocab", type=int, default=VOCAB, help="of the random model")
    parser.add_argument("--qwen7b", action="store_true", help="the random model has the sizes of Qwen2.5-7B")
    parser.add_argument("--only-random", action="store_true", help="without the pretrained model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time (without malloc variables)")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--plot", action="store_true")
    return parser.parse_args()


def pretrained(options: argparse.Namespace) -> tuple[Any, Batch]:
    """The model at `--model`, and items of `--data` cut to `--time` tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    lines = options.data.read_text(encoding="utf-8").splitlines()
    texts = ["{question}\n{answer}".format(**json.loads(line)) for line in lines[: 4 * options.batch]]
    tokens = [tokenizer(text, truncation=True, max_length=options.time).input_ids for text in texts]
    tokens = sorted(tokens, key=len)[-options.batch :]
    time = max(map(len, tokens))
    ids = torch.tensor([line + [0] * (time - len(line)) for line in tokens])
    mask = torch.tensor([[1] * len(line) + [0] * (time - len(line)) for line in tokens])
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    return model, {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def random_qwen(options: argparse.Namespace, *, vocab: int | None = None) -> tuple[Any, Batch]:
    """A Qwen2 of `--layers` of `--width`, or of the sizes of Qwen2.5-7B; random tokens."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    vocab = vocab or int(QWEN7B["vocab_size"] if options.qwen7b else options.vocab)
    heads = max(1, options.width // 64)
    sizes = {
        "hidden_size": options.width, "intermediate_size": 4 * options.width, "num_hidden_layers": options.layers,
        "num_attention_heads": heads, "num_key_value_heads": heads,
    }  # fmt: skip
    sizes |= QWEN7B if options.qwen7b else {}
    config = Qwen2Config(**{**sizes, "vocab_size": vocab}, tie_word_embeddings=False)
    ids = torch.randint(0, vocab, (options.batch, options.time))
    with torch.device(options.device), dtype_of_weights(options):  # the host need not have room for it
        model = Qwen2ForCausalLM(config)
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


@contextlib.contextmanager
def dtype_of_weights(options: argparse.Namespace) -> Iterator[None]:
    """Make new floating-point tensors in the dtype of the weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if options.bf16 else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def placed(model: Any, batch: Batch, options: argparse.Namespace) -> tuple[Any, Batch]:
    """Both on the device, the weights in the dtype that is asked for."""
    model = model.to(options.device, dtype=torch.bfloat16 if options.bf16 else None)
    return model, {name: value.to(options.device) for name, value in batch.items()}


def with_lora(model: Any) -> Any:
    """LoRA on all linear layers but the head, as usual."""
    import peft

    return peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))


def measured(model: Any, batch: Batch, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of each part, by name; best of the repeats."""
    from uds_adapters import batches
    from uds_adapters.scoring.scorer import Scorer
    from uds_adapters.torch import BatchSelector

    select = BatchSelector(model, uds.UDS(count=options.keep))
    others = {
        "random_step": BatchSelector(model, uds.Random(count=options.keep)),
        "predicted_step": BatchSelector(model, uds.Predicted("entropy", count=options.keep, warmup=2)),
        "predicted_uds_step": BatchSelector(model, uds.Predicted("uds", count=options.keep, warmup=2)),
        "fresh_step": BatchSelector(model, uds.Fresh(count=options.keep)),
    }
    samples, few = batches.view(batch), batches.view(batch).take(list(range(options.keep)))
    scorer, inner = Scorer(model), model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone: Any = inner.get_decoder()
    authors = Authors(time=512, vocab=inner.config.vocab_size, device=options.device)
    queue: list[torch.Tensor] = []

    def train(part: Batch) -> None:
        model.train()
        model(**part).loss.backward()
        model.zero_grad()

    def look() -> None:
        model.eval()
        with torch.no_grad():
            backbone(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)

    def theirs() -> None:
        model.train()
        with torch.no_grad():
            logits = model(**batch).logits
            utility, sketch = map(torch.cat, zip(*(authors.examine(one[None]) for one in logits), strict=True))
            far = torch.cdist(sketch, torch.cat(queue)).mean(1) if queue else torch.zeros_like(utility)
        best = torch.topk(utility + 1.5e-3 * far, options.keep).indices
        queue[:] = [*queue, sketch[best]][-256:]
        train({name: value[best] for name, value in batch.items()})

    parts = {
        "backbone": look,
        "scoring_pass": lambda: scorer.examine(samples, Looking()),
        "scoring": lambda: scorer.examine(samples, uds.UDS()),
        "train_kept": lambda: train(few),
        "step": lambda: train(select(batch)),
        "preparing_step": lambda: (select.state_dict(), train(select(batch))),  # as after a checkpoint
        "train_all": lambda: train(batch),
    }
    parts |= {name: lambda selector=selector: train(selector(batch)) for name, selector in others.items()}
    best: dict[str, float] = {}
    for part in parts.values():
        for _ in range(4):  # the first choices of a predicted score are exact
            part()
    for _ in range(options.repeat):  # in turns, so that a slow minute of the machine is one for all of them
        for name, part in parts.items():
            best[name] = min(best.get(name, float("inf")), measure.once(part))
    theirs()
    return {**best, "authors_step": measure.once(theirs)}


def cases(options: argparse.Namespace) -> Iterator[tuple[str, Callable[..., tuple[Any, Batch]], bool]]:
    """Names, how to make each model and its batch, and whether with LoRA."""
    vocab = QWEN7B["vocab_size"] if options.qwen7b else options.vocab
    made: dict[str, Callable[..., tuple[Any, Batch]]] = {f"random Qwen2, V = {vocab:,}": random_qwen}
    if not options.only_random and options.model.is_dir() and options.data.is_file():
        made = {options.model.name: pretrained, **made}
    for name, make in made.items():
        yield f"{name}, LoRA", make, True
        if not options.qwen7b:
            yield f"{name}, all trained", make, False


def extra_memory(options: argparse.Namespace) -> list[dict[str, int]]:
    """Peak memory of one scoring call above what was resident before, head prepared, for growing vocabularies."""
    from uds_adapters import batches
    from uds_adapters.scoring.scorer import Scorer

    found = []
    sizes = (16_000, 32_000, 64_000, 128_000) if options.vocab == VOCAB else (options.vocab, 2 * options.vocab)
    for vocab in sizes:

        def prepare(vocab: int = vocab) -> Callable[[], Any]:
            model, batch = random_qwen(options, vocab=vocab)
            model, batch = placed(model.requires_grad_(False), batch, options)
            scorer, samples = Scorer(model), batches.view(batch)
            scorer.examine(samples, uds.UDS())
            return lambda: scorer.examine(samples, uds.UDS())

        one_position = options.batch * vocab * 4
        extra = measure.peak_bytes(prepare, device=options.device)
        found.append({"vocab": vocab, "extra_bytes": extra, "one_position_bytes": one_position})
    return found


def report(rows: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    """A table for people."""
    print(f"B = {options.batch}, K = {options.keep}, N = {options.time}, {options.threads} thread(s); milliseconds\n")
    names = list(next(iter(rows.values())))
    print(f"{'':36}" + "".join(f"{name:>18}" for name in names))
    for case, row in rows.items():
        cells = (1e3 * row[name] if not name.startswith("x_") else row[name] for name in names)
        print(f"{case:36}" + "".join(f"{cell:18.2f}" for cell in cells))


def report_memory(memory: list[dict[str, int]]) -> None:
    """A table for people."""
    print(f"{'vocabulary':>12}{'extra MiB':>12}{'of which one position':>24}")
    for row in memory:
        print(f"{row['vocab']:12,}{row['extra_bytes'] / 2**20:12.1f}{row['one_position_bytes'] / 2**20:24.1f}")


def ratios(row: dict[str, float]) -> dict[str, float]:
    """What is asked of the step; names begin with `x_`."""
    floor = row["backbone"] + row["train_kept"]
    step = row["step"] + max(0.0, row["preparing_step"] - row["step"]) / PREPARED_FOR
    return {
        "x_pass_over_backbone": row["scoring_pass"] / row["backbone"],
        "x_scoring_over_backbone": row["scoring"] / row["backbone"],
        "x_examine_over_backbone": (row["scoring"] - row["scoring_pass"]) / row["backbone"],
        "x_step_over_floor": step / floor,
        "x_preparing_over_floor": row["preparing_step"] / floor,
        "x_step_over_all": step / row["train_all"],
        "x_authors_over_step": row["authors_step"] / step,
    }


def plot() -> None:
    """Bars, of the CPU's figures: the floor, our step, training on all, the authors' step."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "uds", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    result = json.loads(measure.results("step", "cpu").read_text(encoding="utf-8"))
    figure, axes = plt.subplots(1, len(result["rows"]), figsize=(2.9 * len(result["rows"]), 3.6))
    for axis, (case, row) in zip(axes, result["rows"].items(), strict=True):
        bars = {
            "floor": (row["backbone"], row["train_kept"]),
            "selecting": (row["step"] - row["train_kept"], row["train_kept"]),
            "train all": (0.0, row["train_all"]),
            "authors": (row["authors_step"] - row["train_kept"], row["train_kept"]),
        }
        scoring, training = ([1e3 * pair[side] for pair in bars.values()] for side in (0, 1))
        axis.bar(list(bars), training, color="#0072b2", label="training")
        axis.bar(list(bars), scoring, bottom=training, color="#e69f00", label="scoring")
        top = 1.6e3 * max(row["step"], row["train_all"])
        if 1e3 * row["authors_step"] > top:
            axis.set_ylim(0, top)
            axis.text(3, top, f"{row['authors_step']:.1f} s", ha="center", va="top", fontsize=8)
        axis.set_title(case.replace(", V = ", ",\nV = "), fontsize=8.5)
        axis.tick_params(axis="x", labelsize=8, rotation=25)
    axes[0].set_ylabel("milliseconds a step, without the optimizer")
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(FIGURE.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(FIGURE.with_suffix(".png"), dpi=150)


def main() -> None:
    """Measure, and print tables and a JSON line; or draw."""
    options = parse()
    if options.plot:
        plot()
        return
    torch.set_num_threads(options.threads)
    names = ("batch", "keep", "time", "width", "layers", "bf16", "repeat", "device")
    settings = {name: getattr(options, name) for name in names}
    if options.memory:
        memory = extra_memory(options)
        report_memory(memory)
        found: dict[str, Any] = {"rows": memory} if options.only_random else {"memory": memory}
    else:
        rows = measure_rows(options)
        report(rows, options)
        found = {"benchmark": "step", "settings": settings, "rows": rows, **measure.surroundings(options.device)}
    print("\n" + json.dumps(found))
    if options.write:
        file = measure.results("step", options.device)
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        file.write_text(json.dumps(known | found, indent=1) + "\n", encoding="utf-8")


def measure_rows(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds and ratios of each case."""
    rows = {}
    for case, make, lora in cases(options):
        model, batch = make(options)
        row = measured(*placed(with_lora(model) if lora else model, batch, options), options)
        rows[case] = row | ratios(row)
    return rows


if __name__ == "__main__":
    main()
