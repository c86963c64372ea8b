"""Model of the demo: a small Llama and its tokenizer, pretrained for some seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["build_model", "build_tokenizer", "pretrain"]

_BEGIN, _END, _PAD = "<s>", "</s>", "<pad>"


def build_tokenizer(texts: Sequence[str], /, *, vocab: int = 512) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, trained on `texts`."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[_BEGIN, _END, _PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=_BEGIN, eos_token=_END, pad_token=_PAD
    )


def build_model(tokenizer: Any, /, *, seed: int, width: int = 128, layers: int = 3) -> transformers.LlamaForCausalLM:
    """A Llama with random weights; the global generator is left as it was."""
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.LlamaForCausalLM(config)


def pretrain(
    model: Any,
    /,
    *,
    tokenizer: Any,
    texts: Sequence[str],
    steps: int,
    seed: int,
    batch_size: int = 16,
    time: int = 64,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """Train on all tokens of `texts`, joined and cut into windows of `time` tokens drawn at random."""
    end = tokenizer.eos_token_id
    stream = torch.tensor([token for ids in tokenizer(list(texts))["input_ids"] for token in (*ids, end)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1)
    generator = random.Random(seed)
    model.train()
    for step in range(1, steps + 1):
        starts = [generator.randrange(len(stream) - time) for _ in range(batch_size)]
        windows = torch.stack([stream[start : start + time] for start in starts])
        model(input_ids=windows, labels=windows).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if after_step is not None:
            after_step(step)
    model.eval()
