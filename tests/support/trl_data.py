"""Texts, a tokenizer and the batch modes of TRL."""

import numpy as np
import tiny
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

MODES = {
    "padded": {},
    "prompts": {},
    "bfd": {"packing": True, "max_length": 32},
    "padding_free": {"padding_free": True, "max_length": None},
    "padding_free_64": {"padding_free": True, "max_length": None, "pad_to_multiple_of": 64},
    "wrapped": {"packing": True, "packing_strategy": "wrapped", "max_length": 16},
}


def tokenizer():
    words = {"<pad>": 0, "</s>": 1, **{f"w{i}": i for i in range(2, tiny.VOCAB)}}
    of_words = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    of_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=of_words, pad_token="<pad>", eos_token="</s>")


def text(rng, shortest, longest):
    return "".join(f" w{i}" for i in rng.integers(2, tiny.VOCAB, size=rng.integers(shortest, longest)))


def data(mode, number=96):
    rng = np.random.default_rng(0)
    if mode == "prompts":
        return Dataset.from_list([{"prompt": text(rng, 2, 6), "completion": text(rng, 2, 9)} for _ in range(number)])
    return Dataset.from_list([{"text": text(rng, 4, 14)} for _ in range(number)])
