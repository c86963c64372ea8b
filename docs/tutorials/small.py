"""A small model, its tokenizer and some data: the tutorials run anywhere in seconds. Put your own in their place."""

import warnings

import torch
import transformers
from datasets import Dataset

from uds_adapters.lab.demo.instructions import instructions
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
warnings.filterwarnings("ignore", "'pin_memory'", UserWarning)  # no GPU is needed here

RECORDS = instructions(480, seed=0, repeated=0.25, wrong=0.15)
"""Prompts with completions; a quarter repeats another in other words, some have wrong answers."""


def model_and_tokenizer():
    """A Llama of 0.5 million weights, and a tokenizer of 512 tokens."""
    tokenizer = build_tokenizer([f"{record.prompt}\n{record.completion}" for record in RECORDS])
    return build_model(tokenizer, seed=0), tokenizer


def texts():
    """The records, as TRL takes them."""
    return Dataset.from_list([{"prompt": f"{r.prompt}\n", "completion": r.completion} for r in RECORDS])


def encoded(tokenizer):
    """The records, as the Trainer takes them: only completions carry loss."""
    return Dataset.from_list([_encode(tokenizer, number, record) for number, record in enumerate(RECORDS)])


def collate(examples):
    """Examples padded to the longest."""
    time = max(len(one["input_ids"]) for one in examples)

    def padded(name, filler):
        return torch.tensor([[*one[name], *[filler] * (time - len(one[name]))] for one in examples])

    batch = {"input_ids": padded("input_ids", 0), "labels": padded("labels", -100)}
    batch["attention_mask"] = torch.tensor(
        [[i < len(one["input_ids"]) for i in range(time)] for one in examples]
    ).long()
    return batch | {"id": torch.tensor([one["id"] for one in examples])}


def _encode(tokenizer, number, record):
    prompt = tokenizer(f"{record.prompt}\n")["input_ids"]
    completion = [*tokenizer(record.completion)["input_ids"], tokenizer.eos_token_id]
    return {"id": number, "input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}
