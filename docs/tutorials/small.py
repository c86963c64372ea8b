"""Small model, tokenizer and data of the tutorials, to be replaced by your own."""

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
"""Prompts with completions; a quarter are rephrased near-duplicates, some have wrong answers."""


def model_and_tokenizer():
    """Return a Llama of 0.5 million weights, and a tokenizer of 512 tokens."""
    tokenizer = build_tokenizer([f"{record.prompt}\n{record.completion}" for record in RECORDS])
    return build_model(tokenizer, seed=0), tokenizer


def texts():
    """Return the records in the format of TRL."""
    return Dataset.from_list([{"prompt": f"{r.prompt}\n", "completion": r.completion} for r in RECORDS])


def encoded(tokenizer):
    """Return tokenized records for the Trainer; only completions have loss."""
    return Dataset.from_list([_encode(tokenizer, number, record) for number, record in enumerate(RECORDS)])


def collate(examples):
    """Return a batch of examples padded to the longest."""
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
