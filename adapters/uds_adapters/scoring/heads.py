"""Which `uds_core.Head` a model's head amounts to: hypotheses, verified on one position of the model's own logits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

import uds_core as uds

__all__ = ["After", "Explained", "HeadReader", "Linear", "capped"]

_SCALES = ("logit_scale", "lm_head_multiplier", "logits_scaling", "output_multiplier")
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "softcap")
_ROWS = 4  # samples that a hypothesis is verified on: each has as many numbers as the vocabulary
_SPREAD = 4.0  # the largest of many logits, in units of their usual size
_IDENTITY_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Linear:
    """A head module as a linear map: it makes hidden weight^T + bias. `weight` None: it is none that could be found.

    `raw` (samples, 1, vocab) is what the module made of the position that it was verified on. Where it `stands_in`, it
    was not made: these numbers are to be put in the place of the module's output.
    """

    raw: torch.Tensor
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    key: tuple[Any, ...] = ()
    stands_in: bool = False


@dataclass(frozen=True, eq=False)
class Explained:
    """The model's logits: those of `head`, and where there is a `cap`, cap tanh(logits / cap)."""

    head: uds.Head
    cap: float | None


@dataclass(frozen=True, eq=False)
class After:
    """What a model does to its head's output: cap tanh((scale x + constant) / cap)."""

    scale: float = 1.0
    constant: torch.Tensor | None = None
    cap: float | None = None

    def __call__(self, raw: torch.Tensor) -> torch.Tensor:
        """The model's logits, from the head's output."""
        logits = raw.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.constant is not None:
            logits = logits + self.constant.float()
        return logits if self.cap is None else capped(logits, self.cap)


class HeadReader:
    """Reads a head in two steps: what the module is, as it runs, and what the model does to its output, afterwards.

    Parameters
    ----------
    module
        The head: what `get_output_embeddings` gives.
    model
        Its model, bare; its configuration and buffers name hypotheses, none of which is trusted.

    Notes
    -----
    A module's own weight is taken where it explains the output and nothing else in the module trains. Otherwise (LoRA
    on the head, quantised, offloaded) the weight it amounts to is made by handing it the identity, in blocks. Where
    nothing of the module trains, both are kept, and looked after by `_mark` and by verifying them in every pass.

    PyTorch's own linear layer is known, so that it need not run: other numbers stand in for its output. What the model
    does to them tells as much as what it does to its own, and the weight, which can be a tenth of the work of a small
    model's forward to read, is not read.
    """

    def __init__(self, module: torch.nn.Module, model: torch.nn.Module) -> None:
        self.module, self.model = module, model
        self._shifted = [inner for inner in model.modules() if "final_logits_bias" in inner._buffers]
        self._linear: Linear | None = None
        self._head: tuple[tuple[Any, ...], uds.Head] | None = None
        self._bent: tuple[Any, ...] | None = None  # by which a module is known that is not linear

    @property
    def frozen(self) -> bool:
        """Whether no parameter of the module trains; with LoRA on it, others than its weight do."""
        return not any(parameter.requires_grad for parameter in self.module.parameters())

    def refresh(self) -> None:
        """Before a scoring call: what was read of a head that trains is no longer true."""
        if not self.frozen:
            self.forget()

    def forget(self) -> None:
        """Keep nothing of what was read."""
        self._linear = self._head = None

    def linear(self, last: torch.Tensor, *args: Any, **kwargs: Any) -> Linear:
        """What the module is, verified on `last` (samples, 1, width). To be called where it runs, in its precision."""
        last, alone = last[:_ROWS], not args and not kwargs
        key = tuple(_mark(tensor) for tensor in itertools.chain(self.module.parameters(), self.module.buffers()))
        weights = self._weights(key, last, alone=alone)
        if alone and self._is_known():
            weight, bias = next(weights)
            self._linear = Linear(_stand_in(last, weight, bias), weight, bias, key, stands_in=True)
            return self._linear
        raw = self.module.forward(last, *args, **kwargs)
        for weight, bias in weights:
            if weight.shape[1] == last.shape[2] and _agree(_product(last, weight, bias), raw, weight.dtype):
                self._linear = Linear(raw, weight, bias, key)
                return self._linear
        self._bent = key
        return Linear(raw)

    def explain(self, linear: Linear, logits: torch.Tensor) -> Explained | None:
        """The head with which the model's logits (batch, 1, vocab) of that position come about, or None."""
        after = self.after(linear, logits)
        return None if after is None else Explained(self._head_of(linear, after, logits.shape[-1]), after.cap)

    def after(self, linear: Linear, logits: torch.Tensor) -> After | None:
        """What the model does to its head's output, so that its logits of that position come about, or None."""
        if linear.weight is None:
            return None
        logits = logits[:_ROWS]
        raw = linear.raw[..., : logits.shape[-1]]  # some models pad the head, and cut its output
        if raw.shape != logits.shape:
            return None
        for hypotheses in self._hypotheses():
            errors = {after: _errors(map(after, raw), logits) for after in hypotheses}
            after = min(errors, key=lambda after: errors[after][1])
            if errors[after][0] <= _tolerance(raw.dtype, logits.dtype):
                return after
        return None

    def holds(self, linear: Linear, after: After, logits: torch.Tensor) -> bool:
        """Whether the model did `after` to its head's output, as it did in another pass."""
        logits = logits[:_ROWS]
        raw = linear.raw[..., : logits.shape[-1]]
        if linear.weight is None or raw.shape != logits.shape:
            return False
        return _errors(map(after, raw), logits)[0] <= _tolerance(raw.dtype, logits.dtype)

    def head(self, linear: Linear, after: After, vocab: int) -> uds.Head:
        """The head that makes the model's logits, but for a cap, of hidden states."""
        assert linear.weight is not None
        bias = None if linear.bias is None else linear.bias[:vocab]
        if after.constant is not None:
            constant = after.constant.flatten().float() / after.scale
            bias = constant if bias is None else bias + constant
        return uds.Head(linear.weight[:vocab], bias, after.scale, frozen=self.frozen)

    def _weights(
        self, key: tuple[Any, ...], last: torch.Tensor, *, alone: bool
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Weights and biases that the module may amount to, the cheaper first; `alone`: it takes nothing but `last`."""
        if self._linear is not None and self._linear.weight is not None and self._linear.key == key:
            yield self._linear.weight, self._linear.bias
        if self._has_own():
            weight: Any = self.module.weight
            bias: Any = self.module.bias if hasattr(self.module, "bias") else None
            yield weight.detach(), None if bias is None else bias.detach()
        if alone and key != self._bent:
            yield _effective(self.module, last)

    def _has_own(self) -> bool:
        """Whether the module has a weight whose numbers are there, and nothing trains but it and its bias."""
        weight: Any = getattr(self.module, "weight", None)
        bias: Any = getattr(self.module, "bias", None)
        trains = {id(parameter) for parameter in self.module.parameters() if parameter.requires_grad}
        return _is_plain(weight) and (bias is None or _is_plain(bias)) and trains <= {id(weight), id(bias)}

    def _is_known(self) -> bool:
        """Whether the module is PyTorch's own linear layer, and nothing that somebody hung on it sees what it makes."""
        module: Any = self.module
        hooks = (module._forward_hooks, torch.nn.modules.module._global_forward_hooks)
        return type(module) is torch.nn.Linear and "forward" not in vars(module) and not any(hooks) and self._has_own()

    def _hypotheses(self) -> Iterator[list[After]]:
        """What may happen to the head's output. None is trusted: names are used in opposite senses, or not at all.

        A cap comes first: in half precision, capping of small logits looks like rounding, and would be overlooked.
        """
        config: Any = getattr(self.model, "config", None)
        configs = [config, config.get_text_config(decoder=True)] if hasattr(config, "get_text_config") else [config]
        # those that are configured first: where a cap levels everything, one is as good as another
        scales = [*(s for value in _numbers(configs, _SCALES) for s in (value, 1.0 / value)), 1.0]
        constants = [None, *(module.get_buffer("final_logits_bias") for module in self._shifted)]
        for cap in (*_numbers(configs, _CAPS), None):
            yield [After(scale, moved, cap) for scale in scales for moved in constants]

    def _head_of(self, linear: Linear, after: After, vocab: int) -> uds.Head:
        """The head, kept as long as nothing of it has changed."""
        constant = None if after.constant is None else _mark(after.constant)
        key = (id(linear.weight), linear.key, after.scale, vocab, constant)
        if self._head is None or self._head[0] != key:
            self._head = key, self.head(linear, after, vocab)
        return self._head[1]


def capped(logits: torch.Tensor, cap: float) -> torch.Tensor:
    """Soft-capping: cap tanh(logits / cap)."""
    return (logits / cap).tanh_().mul_(cap)


def _effective(module: torch.nn.Module, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weight and bias that a linear module amounts to, by what it makes of zero and of the unit vectors."""
    width = like.shape[2]
    bias = module.forward(like.new_zeros(1, 1, width))[0, 0]
    weight = bias.new_empty(len(bias), width)
    step = max(1, _IDENTITY_BYTES // (4 * len(bias)))
    for start in range(0, width, step):
        units = torch.eye(min(step, width - start), width, dtype=like.dtype, device=like.device)
        weight[:, start : start + step] = (module.forward(units.roll(start, 1)[None])[0] - bias).T
    return weight, bias if bool(bias.any()) else None


def _stand_in(last: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Numbers in the place of the product (samples, 1, vocab): of its size and dtype, spread evenly, no two rows alike.

    As large as what some words are given: smaller, they would not show a cap, and larger, not a constant.
    """
    some = slice(None, None, max(1, len(weight) // 64))
    made = torch.nn.functional.linear(last, weight[some], None if bias is None else bias[some])
    size = torch.where(torch.isfinite(made), made, 0.0).double().square().mean().sqrt()
    words = (
        torch.arange(len(weight), dtype=torch.int64, device=weight.device) * 40_503 % 65_536
    )  # each number once, in no order
    row = (words / 2.0**15 - 1.0) * torch.where(size > 0, _SPREAD * size, 1.0)
    return torch.stack([row.roll(sample) for sample in range(len(last))])[:, None].to(made.dtype)


def _product(last: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.linear(last.to(weight.dtype), weight, bias)


def _is_plain(tensor: Any) -> bool:
    """Whether its numbers are the layer's: not quantised, nor sharded, nor elsewhere."""
    if not isinstance(tensor, torch.Tensor) or tensor.is_meta or not tensor.is_floating_point():
        return False
    return type(tensor.detach()) is torch.Tensor and tensor.numel() > 0


def _mark(tensor: torch.Tensor) -> tuple[Any, ...]:
    """By which a changed tensor is known: loading by its version counter, writing through `.data` by some rows."""
    if tensor.is_meta:
        return tuple(tensor.shape)  # offloaded, and another object each time
    if type(tensor.detach()) is not torch.Tensor:
        return (id(tensor), tensor._version)
    rows = tensor.detach().reshape(len(tensor) if tensor.ndim else 1, -1)
    some = rows[:: max(1, len(rows) // 64)].double().sum().item()
    return (tensor.data_ptr(), tensor._version, tensor.device, some)


def _numbers(configs: list[Any], names: tuple[str, ...]) -> list[float]:
    """What configurations say under `names`, as far as it could be a factor."""
    values: dict[Any, None] = dict.fromkeys(getattr(config, name, None) for config in configs for name in names)
    return [float(value) for value in values if type(value) in (int, float) and value != 0]


def _agree(got: torch.Tensor, expected: torch.Tensor, *dtypes: torch.dtype) -> bool:
    tolerance = max(_tolerance(got.dtype, expected.dtype, *dtypes), 2 * _coarse_products())
    return got.shape == expected.shape and _errors(got, expected)[0] <= tolerance


def _errors(got: Iterable[torch.Tensor], expected: torch.Tensor) -> tuple[float, float]:
    """Largest and mean difference of samples' logits, one sample at a time: each is as long as the vocabulary."""
    errors = torch.stack([_relative(one, other) for one, other in zip(got, expected, strict=True)])
    return float(errors[:, 0].max()), float(errors[:, 1].mean())


def _relative(got: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Largest and mean difference, relative to an entry and their usual size; what is broken must be so in both."""
    got, expected = got.float(), expected.float()
    if torch.equal(got, expected):
        return expected.new_zeros(2)
    sound = torch.isfinite(expected)
    size = torch.where(sound, expected.abs(), 0.0)
    difference = torch.where(sound, (got - expected).abs(), 0.0) / (size + size.square().mean().sqrt()).clamp(min=1e-30)
    difference = torch.where(torch.isfinite(got) == sound, difference, torch.inf)
    return torch.stack([difference.max(), difference.mean()])


def _tolerance(*dtypes: torch.dtype) -> float:
    """Two roundings of the coarsest dtype; in float32, of long sums."""
    return max(2e-5, *(2 * torch.finfo(dtype).eps for dtype in dtypes))


def _coarse_products() -> float:
    """Rounding of products in float32, where torch was told to make them coarser and faster."""
    matmul = torch.backends.cuda.matmul
    kind = getattr(matmul, "fp32_precision", None)  # since torch 2.9, where asking the old name may be an error
    faster = matmul.allow_tf32 if kind is None else kind == "tf32"
    return 2.0**-10 if faster else 0.0
