"""Pretrain a larger base model for the study, from textbooks; for a GPU.

    python benchmarks/quality/pretrain.py /tmp/textbook80m --minutes 5
    python benchmarks/quality/run.py benchmarks/quality/grid.yaml --model /tmp/textbook80m

The text is `openstax.jsonl.gz` of the shared data, the tokenizer that of the small model beside it. The first 60
modules are held out. The rate rises over the first 2 % of the time, stays, and falls to zero over the last 40 %.
"""

import argparse
import gzip
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).parents[2]
HELD_OUT = 60  # modules
WINDOW = 256


def parse() -> argparse.Namespace:
    """Sizes and time, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model is written")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/ and models/")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64, help="windows of 256 tokens in a step")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def texts(shared: Path) -> tuple[list[str], list[str]]:
    """Modules to learn, and those held out; each begins with its title."""
    with gzip.open(shared / "data" / "textbooks_openstax" / "openstax.jsonl.gz", "rt", encoding="utf-8") as stream:
        modules = [json.loads(line) for line in stream]
    random.Random(0).shuffle(modules)
    found = [f"{module['title']}\n{module['text']}" for module in modules]
    return found[HELD_OUT:], found[:HELD_OUT]


def encode(modules: list[str], tokenizer: Any) -> torch.Tensor:
    """(tokens,) all modules, one after the other, each closed by the end of text."""
    end = tokenizer.eos_token_id
    ids = tokenizer(modules, verbose=False)["input_ids"]  # of whole modules, longer than any context
    return torch.tensor([i for module in ids for i in (*module, end)], dtype=torch.int32)


def make_model(options: argparse.Namespace, tokenizer: Any) -> Any:
    """A Llama with random weights, its head tied to the embedding."""
    torch.manual_seed(options.seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 8 // 3 // 64 * 64,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 64),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.LlamaForCausalLM(config).to(options.device)


def rate(share: float) -> float:
    """Of the peak rate, at a share of the time."""
    return min(share / 0.02, 1.0, max(0.0, 1.0 - share) / 0.4)


def windows(tokens: torch.Tensor, batch: int, generator: torch.Generator, device: str) -> torch.Tensor:
    """(batch, WINDOW) at random places."""
    starts = torch.randint(len(tokens) - WINDOW, (batch, 1), generator=generator)
    return tokens[starts + torch.arange(WINDOW)].long().to(device)


def loss_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Token-mean loss, computed in bfloat16."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        return model(input_ids=ids, labels=ids).loss


def train(model: Any, tokens: torch.Tensor, options: argparse.Namespace) -> tuple[int, float]:
    """Steps taken, and seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.95), weight_decay=0.1)
    generator = torch.Generator().manual_seed(options.seed)
    began, steps = time.perf_counter(), 0
    while (share := (time.perf_counter() - began) / (60 * options.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = options.rate * rate(share)
        loss = loss_of(model, windows(tokens, options.batch, generator, options.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        if steps % 100 == 0:
            print(f"{share:.0%} of the time, step {steps}: {loss.item():.3f}", flush=True)
    return steps, time.perf_counter() - began


@torch.no_grad()
def measure(model: Any, tokens: torch.Tensor, options: argparse.Namespace) -> float:
    """Loss on held-out windows."""
    generator = torch.Generator().manual_seed(1)
    losses = [loss_of(model, windows(tokens, 16, generator, options.device)) for _ in range(16)]
    return torch.stack(losses).mean().item()


def main() -> None:
    """Pretrain, measure, save."""
    options = parse()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.shared / "models" / "textbook4m")
    learnt, held = (encode(modules, tokenizer) for modules in texts(options.shared))
    model = make_model(options, tokenizer)
    steps, seconds = train(model, learnt, options)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": steps,
        "tokens": steps * options.batch * WINDOW,
        "seconds": round(seconds, 1),
        "heldout_loss": round(measure(model, held, options), 4),
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu",
        "torch": torch.__version__,
    }
    model.save_pretrained(options.folder)
    tokenizer.save_pretrained(options.folder)
    (options.folder / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
