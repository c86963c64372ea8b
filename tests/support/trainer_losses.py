"""Trainers with losses of many kinds: a policy's, and a stock one that is fed given batches."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import tiny
import torch
import transformers
from recorded_trainer import Fed, Gradients, arguments

import uds_core as uds
from uds_adapters.ranks import Ranks
from uds_adapters.transformers import UDSTrainerMixin

# no two alike, so that the longest are never in doubt; odd, so that no batch looks aligned to a multiple
LENGTHS = (5, 9, 7, 15, 11, 21, 17, 3, 19, 13, 23, 25, 27, 29, 33, 31)


def rows(number: int, *, first: int = 0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(first)
    ids = [torch.randint(2, tiny.VOCAB, (LENGTHS[i % 16],), generator=generator).tolist() for i in range(number)]
    return [{"input_ids": one, "labels": one} for one in ids]


def mixture() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = {"num_key_value_heads": 2, "num_local_experts": 4, "output_router_logits": True}
    config = transformers.MixtralConfig(
        vocab_size=tiny.VOCAB, pad_token_id=0, router_aux_loss_coef=0.02, **sizes, **experts
    )
    return transformers.MixtralForCausalLM(config)


def encoder_decoder(family: str) -> Any:
    torch.manual_seed(0)
    cls: Any = getattr(transformers, f"{family}ForConditionalGeneration")
    sizes: dict[str, Any] = {"d_model": 16, "pad_token_id": 0, "decoder_start_token_id": 0, "vocab_size": tiny.VOCAB}
    if family == "T5":
        return cls(cls.config_class(d_kv=8, d_ff=24, num_layers=1, num_heads=2, dropout_rate=0.0, **sizes))
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "dropout": 0.0, "forced_eos_token_id": None}
    return cls(cls.config_class(bos_token_id=1, eos_token_id=2, **sizes, **layers, **widths))


class MeanLoss(transformers.Trainer):
    """A loss that is a mean over the micro-batch, said to be one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_is_scaled_for_ga = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs).loss


class Regularised(transformers.Trainer):
    """A loss with a part that depends on the weights, and one on the logits of the micro-batch.

    Data parallelism takes the mean of what the processes add; `processes`: as one of so many would.
    """

    processes = 1

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = cast("tuple[torch.Tensor, Any]", super().compute_loss(model, inputs, True, num_items_in_batch))
        weights = sum(weight.square().sum() for weight in model.parameters())
        return loss + (1e-3 * weights + 0.1 * outputs.logits.square().mean()) / self.processes


def cross_entropy(outputs: Any, labels: Any, reduction: str) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction=reduction
    )


def function_of_means(outputs, labels, num_items_in_batch=None):
    return cross_entropy(outputs, labels, "mean")


def function_of_items(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    return cross_entropy(outputs, labels, "sum") / num_items_in_batch


@dataclass(frozen=True)
class Loss:
    """A kind of loss."""

    model: Any = tiny.llama
    trainer: Any = transformers.Trainer
    options: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)


LOSSES = {
    "sum": Loss(),
    "mean": Loss(trainer=MeanLoss),
    "regularised": Loss(trainer=Regularised),
    "function of means": Loss(options={"compute_loss_func": function_of_means}),
    "function of items": Loss(options={"compute_loss_func": function_of_items}),
    "smoothed": Loss(arguments={"label_smoothing_factor": 0.1}),
    "mixture of experts": Loss(model=mixture),
    "t5": Loss(model=lambda: encoder_decoder("T5")),
    "bart": Loss(model=lambda: encoder_decoder("Bart")),
}


class Settings(NamedTuple):
    """A Trainer's settings, of each process."""

    accumulation: int = 1
    batch_size: int = 1
    scope: Any = "step"
    count: int = 1
    ranks: Any = "rank"
    tokens_seen: str = "all"


def counted(trainer: Any, seen: Gradients) -> dict[str, Any]:
    """Return what a Trainer computed in its one step."""
    entry = trainer.state.log_history[0]
    return {
        "gradient": seen.steps[0],
        "loss": entry["loss"],
        "tokens": trainer.state.num_input_tokens_seen,
        "flops": trainer.state.total_flos,
        "metrics": {name: entry[name] for name in ("entropy", "mean_token_accuracy", "num_tokens") if name in entry},
    }


def chosen(folder, kind: str, given: Settings, *, size: int = 1) -> dict[str, Any]:
    """Run one step of a Trainer with a policy; also return the batches that it trained, of one process."""

    class Sequential(UDSTrainerMixin, LOSSES[kind].trainer):
        def _get_train_sampler(self, *_args: Any, **_kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(range(len(data)))

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            batches, number = super().get_batch_samples(*args, **kwargs)
            kept.extend(dict(batch) for batch in batches if len(batch["labels"]))
            return batches, number

    kept: list[Any] = []
    data = rows(given.accumulation * given.batch_size * size)
    seen = Gradients()
    trainer = Sequential(
        model=LOSSES[kind].model(),
        args=_arguments(folder, kind, given, given.accumulation, per_device_train_batch_size=given.batch_size),
        train_dataset=data,
        data_collator=tiny.collate,
        policy=uds.Longest(count=given.count),
        scope=given.scope,
        ranks=Ranks(placement="global", samples="stay") if given.ranks == "stay" else given.ranks,
        callbacks=[seen],
        **LOSSES[kind].options,
    )
    trainer.train()
    return {**counted(trainer, seen), "kept": kept}


def stock(folder, kind: str, given: Settings, batches: list[Any], *, world: int = 1) -> dict[str, Any]:
    """Run one step of a stock Trainer, in this process, on these micro-batches."""

    class FedOfKind(Fed, LOSSES[kind].trainer):
        processes = world

    seen = Gradients()
    trainer = FedOfKind(
        model=LOSSES[kind].model(),
        args=_arguments(folder, kind, given, len(batches)),
        train_dataset=batches,
        batches=batches,
        callbacks=[seen],
        **LOSSES[kind].options,
    )
    trainer.train()
    return counted(trainer, seen)


def several(folder, *, cases) -> list[dict[str, Any]]:
    """Run `chosen` for each (kind, settings), in a process of two."""
    return [chosen(folder, kind, Settings(*given), size=2) for kind, given in cases]


def _arguments(folder, kind: str, given: Settings, accumulation: int, **options: Any) -> Any:
    return arguments(
        folder,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        include_num_input_tokens_seen=given.tokens_seen,
        **LOSSES[kind].arguments,
        **options,
    )
