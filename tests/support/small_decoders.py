"""Small decoders of several families, a batch for them, and the gradients of their loss."""

from typing import Any

import torch
import transformers

from uds_adapters.batches import IGNORE
from uds_adapters.lab.models import with_lora

BOUND = 1e-6
"""Norm of the difference of two gradients in float32, relative to the norm of the gradient."""

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "head_dim": 8,
}
WIDE: dict[str, Any] = {**SMALL, "hidden_size": 192, "intermediate_size": 512, "head_dim": 96}
MODELS = {
    "tied": lambda: transformers.LlamaConfig(**SMALL, tie_word_embeddings=True),
    "untied": lambda: transformers.LlamaConfig(**SMALL, tie_word_embeddings=False),
    "scaled": lambda: transformers.CohereConfig(**SMALL, logit_scale=0.5),
    "capped": lambda: transformers.Gemma2Config(**SMALL, final_logit_softcapping=3.0),
    "wide": lambda: transformers.LlamaConfig(**WIDE),
    "routed": lambda: transformers.MixtralConfig(**SMALL, num_local_experts=2, output_router_logits=True),
}


def model_of(name, *, lora=False):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(MODELS[name]())
    return (with_lora(model, rank=2, seed=0) if lora else model).train()


def batch_of(*, number=5, time=11):
    ids = torch.randint(3, 97, (number, time), generator=torch.Generator().manual_seed(1))
    lengths = torch.arange(number) % 4 + time - 3
    mask = (torch.arange(time) < lengths[:, None]).long()
    labels = torch.where((mask == 1) & (torch.arange(time) > 2), ids, IGNORE)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def trained(model, batch, **options):
    model.zero_grad()
    loss = model(**batch, **options).loss
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def far(got, expected):
    """Norm of the difference of two gradients of a model, relative to that of the second."""
    assert got.keys() == expected.keys()
    squares = [
        ((got[name] - expected[name]).double().square().sum(), expected[name].double().square().sum()) for name in got
    ]
    one, other = (torch.stack(side).sum() for side in zip(*squares, strict=True))
    return float((one / other).sqrt())
