"""The `uds_core.Head` equivalent to a model's head, verified on one position of the model's logits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

import uds_core as uds

from .fingerprints import fingerprints, is_plain, partial_sums
from .host_copies import HostCopies
from .prepared_head import PreparedHead
from .rounding import agree, allowed, relative_errors

__all__ = ["After", "Explained", "HeadReader", "Linear", "capped"]

_SCALES = ("logit_scale", "lm_head_multiplier", "logits_scaling", "output_multiplier")
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "softcap")
_SAMPLES = 4  # samples that verify a hypothesis: each has one logit per vocabulary entry
_SPREAD = 4.0  # the largest of many logits, in units of their usual size
_IDENTITY_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Linear:
    """A head module as a linear map, hidden weight^T + bias. `weight` is None if no such map was verified.

    `raw` (samples, 1, vocab) is the module's output at the position used for verification. If `stands_in`, the module
    did not run, and `raw` must replace its output.
    """

    raw: torch.Tensor
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    key: tuple[Any, ...] = ()
    stands_in: bool = False


@dataclass(frozen=True, eq=False)
class Explained:
    """The model's logits: those of `head`, then cap tanh(logits / cap) if there is a `cap`."""

    head: uds.Head
    cap: float | None


@dataclass(frozen=True, eq=False)
class After:
    """The model's transformation of its head's output: cap tanh((scale x + constant) / cap)."""

    scale: float = 1.0
    constant: torch.Tensor | None = None
    cap: float | None = None

    def __call__(self, raw: torch.Tensor) -> torch.Tensor:
        """Return the model's logits for the head's output."""
        logits = raw.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.constant is not None:
            logits = logits + self.constant.float()
        return logits if self.cap is None else capped(logits, self.cap)


class HeadReader:
    """Determine a head in two steps: the module's linear map while it runs, then the model's transformation of it.

    Parameters
    ----------
    module
        The head, from `get_output_embeddings`.
    model
        Its bare model; its configuration and buffers suggest hypotheses, each of which is verified.
    tolerance
        How far a head that trains may move before it is prepared again; see `PreparedHead`.

    Notes
    -----
    The module's own weight is used if it explains the output and nothing else in the module trains. Otherwise (LoRA on
    the head, quantised, offloaded) the effective weight is computed by running the module on the identity, in blocks.
    If nothing in the module trains, both are stored, and checked by `fingerprints` and by verification in every step.
    `tolerance` is for weights that are used as they are: a computed one would be out of date in losses as well.

    PyTorch's own linear layer need not run: its output is replaced by fixed numbers, from which the model's
    transformation can be determined just as well. This avoids reading the weight, which can take a tenth of the time
    of a small model's forward pass.
    """

    def __init__(self, module: torch.nn.Module, model: torch.nn.Module, tolerance: float = 0.0) -> None:
        self.module, self.model = module, model
        self.prepared, self._movement = PreparedHead(tolerance), None
        self.copies = HostCopies()
        self._unread: list[torch.Tensor] | None = None  # numbers of the weights in use: their sums, and the movement
        self._shifted = [inner for inner in model.modules() if "final_logits_bias" in inner._buffers]
        self._linear: Linear | None = None
        self._explained: Explained | None = None  # by the pass that was verified
        self._head: tuple[tuple[Any, ...], uds.Head] | None = None
        self._key: tuple[Any, ...] = ()
        self._nonlinear: tuple[Any, ...] | None = None  # fingerprint of a module that is not linear

    @property
    def frozen(self) -> bool:
        """Whether no parameter of the module trains, including those of LoRA."""
        return not any(parameter.requires_grad for parameter in self.module.parameters())

    def refresh(self) -> None:
        """Discard the results of earlier calls if the head trains; call this before scoring with other weights.

        Until then one pass is verified: in the others the host need not wait.
        """
        self._explained = None
        if not self.frozen:
            self.forget()

    def forget(self) -> None:
        """Discard the stored results, except what is derived of a head."""
        self._linear = self._head = self._explained = None
        self.prepared.release()

    def linear(self, last: torch.Tensor, *args: Any, **kwargs: Any) -> Linear:
        """Return the module's linear map, verified on `last` (samples, 1, width). Call it where the module runs."""
        last, alone = last[:_SAMPLES], not args and not kwargs
        if self._explained is not None and alone and self._is_known():
            return self._stood_in(last)
        movement = self.prepared.movement(*self._own()) if self._reuses() else None
        self._moves = movement is not None
        self._unread = partial_sums(self._tensors()) + ([] if movement is None else [*movement.double()])
        if alone and self._is_known():  # read with what verifies the logits, so that the host waits once
            return self._stood_in(last)
        key, _ = self._read({})
        weights = self._weights(key, last, alone=alone)
        raw = self.module.forward(last, *args, **kwargs)
        computed = self._computed_in(last)
        for weight, bias in weights:
            if weight.shape[1] == last.shape[2] and agree(_product(last, weight, bias), raw, weight.dtype, *computed):
                self._linear = Linear(raw, weight, bias, key)
                return self._linear
        self._nonlinear = key
        return Linear(raw)

    def explain(self, linear: Linear, logits: torch.Tensor) -> Explained | None:
        """Return the head that reproduces the model's logits (batch, 1, vocab) at that position, or None."""
        if self._explained is not None and linear.stands_in:
            return self._explained
        after = self.after(linear, logits)
        if after is None:
            return None
        self._explained = Explained(self._head_of(self._keyed(linear), after, logits.shape[-1]), after.cap)
        return self._explained

    def after(self, linear: Linear, logits: torch.Tensor) -> After | None:
        """Return the transformation of the head's output that reproduces the logits at that position, or None."""
        if linear.weight is None:
            return None
        logits = logits[:_SAMPLES]
        raw = linear.raw[..., : logits.shape[-1]]  # some models pad the head, and cut its output
        if raw.shape != logits.shape:
            return None
        for hypotheses in self._hypotheses():
            found = torch.stack([relative_errors(after(raw), logits) for after in hypotheses])
            errors = dict(zip(hypotheses, self._read({"errors": found})[1]["errors"].tolist(), strict=True))
            after = min(errors, key=lambda after: errors[after][1])
            if errors[after][0] <= allowed(raw.dtype, logits.dtype):
                return after
        return None

    def holds(self, linear: Linear, after: After, logits: torch.Tensor) -> bool:
        """Return whether `after`, determined in another pass, reproduces the model's logits in this one."""
        logits = logits[:_SAMPLES]
        raw = linear.raw[..., : logits.shape[-1]]
        if linear.weight is None or raw.shape != logits.shape:
            return False
        return float(relative_errors(after(raw), logits)[0]) <= allowed(raw.dtype, logits.dtype)

    def head(self, linear: Linear, after: After, vocab: int, *, reuse: bool = True) -> uds.Head:
        """Return the head that computes the model's logits, before any cap, from hidden states.

        `reuse`: with what was derived of it before, where that serves. Once a pass: movement is counted.
        """
        assert linear.weight is not None
        bias = None if linear.bias is None else linear.bias[:vocab]
        if after.constant is not None:
            constant = after.constant.flatten().float() / after.scale
            bias = constant if bias is None else bias + constant
        if reuse and self._reuses():
            self._read({})
            return self.prepared.head(linear.weight[:vocab], bias, after.scale, self._movement)
        return uds.Head(linear.weight[:vocab], bias, after.scale, frozen=self.frozen)

    def _stood_in(self, last: torch.Tensor) -> Linear:
        weight, bias = self._own()
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        return Linear(_stand_in(last, weight, bias), weight, bias, stands_in=True)

    def _tensors(self) -> list[torch.Tensor]:
        return [*itertools.chain(self.module.parameters(), self.module.buffers())]

    def _read(self, tensors: dict[str, torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, torch.Tensor]]:
        """Return the key of the weights in use, and tensors on the host, in one transfer."""
        unread, self._unread = self._unread, None
        if unread:
            tensors = {**tensors, "numbers": torch.stack([number.to(unread[0].device) for number in unread])}
        host = self.copies.read(tensors) if tensors else {}
        if unread is not None:
            numbers = host["numbers"].tolist() if unread else []
            self._movement = (numbers.pop(-2), numbers.pop()) if self._moves else None
            self._key = fingerprints(self._tensors(), numbers)
        return self._key, host

    def _keyed(self, linear: Linear) -> Linear:
        """Return the linear map with its key; the one of an earlier pass, where that has the same."""
        if linear.key:
            return linear
        key, _ = self._read({})
        if self._linear is not None and self._linear.key == key:
            linear = replace(linear, weight=self._linear.weight, bias=self._linear.bias)
        self._linear = replace(linear, key=key)
        return self._linear

    def _reuses(self) -> bool:
        """Return whether the head trains, and its weight is used as it is."""
        return self.prepared.tolerance > 0.0 and not self.frozen and self._has_own()

    def _weights(
        self, key: tuple[Any, ...], last: torch.Tensor, *, alone: bool
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Yield possible weights and biases, cheapest first; `alone`: the module takes no input but `last`."""
        if self._linear is not None and self._linear.weight is not None and self._linear.key == key:
            yield self._linear.weight, self._linear.bias
        if self._has_own():
            weight, bias = self._own()
            yield weight.detach(), None if bias is None else bias.detach()
        if alone and key != self._nonlinear:
            yield _effective(self.module, last)

    def _has_own(self) -> bool:
        """Return whether the module has a plain weight, and nothing else trains but the bias."""
        weight, bias = self._own()
        trains = {id(parameter) for parameter in self.module.parameters() if parameter.requires_grad}
        return is_plain(weight) and (bias is None or is_plain(bias)) and trains <= {id(weight), id(bias)}

    def _own(self) -> tuple[Any, Any]:
        """Return the weight and bias of the module, or of the only linear layer in it."""
        owner: Any = self.module
        if not hasattr(owner, "weight"):
            layers = [layer for layer in owner.modules() if isinstance(layer, torch.nn.Linear)]
            owner = layers[0] if len(layers) == 1 else owner
        return getattr(owner, "weight", None), getattr(owner, "bias", None)

    def _computed_in(self, last: torch.Tensor) -> set[torch.dtype]:
        """Return dtypes that the module may compute in, whatever its output is cast to."""
        dtypes = {parameter.dtype for parameter in self.module.parameters()} & {torch.bfloat16, torch.float16}
        return dtypes | {last.dtype}

    def _is_known(self) -> bool:
        """Return whether the module is PyTorch's own linear layer, without hooks that receive its output."""
        module: Any = self.module
        hooks = (module._forward_hooks, torch.nn.modules.module._global_forward_hooks)
        return type(module) is torch.nn.Linear and "forward" not in vars(module) and not any(hooks) and self._has_own()

    def _hypotheses(self) -> Iterator[list[After]]:
        """Yield possible transformations of the head's output. Each is verified: models use the names differently.

        Caps come first: in half precision, capping small logits is hard to distinguish from rounding.
        """
        config: Any = getattr(self.model, "config", None)
        configs = [config, config.get_text_config(decoder=True)] if hasattr(config, "get_text_config") else [config]
        # configured scales first: if a cap saturates all logits, the data cannot distinguish them
        scales = [*(s for value in _numbers(configs, _SCALES) for s in (value, 1.0 / value)), 1.0]
        constants = [None, *(module.get_buffer("final_logits_bias") for module in self._shifted)]
        for cap in (*_numbers(configs, _CAPS), None):
            yield [After(scale, constant, cap) for scale in scales for constant in constants]

    def _head_of(self, linear: Linear, after: After, vocab: int) -> uds.Head:
        """Return the head, reused while it is unchanged."""
        constants = [] if after.constant is None else [after.constant]
        constant = fingerprints(constants, [float(total) for total in partial_sums(constants)])
        key = (id(linear.weight), linear.key, after.scale, vocab, constant)
        if self._head is None or self._head[0] != key:
            self._head = key, self.head(linear, after, vocab)
        return self._head[1]


def capped(logits: torch.Tensor, cap: float) -> torch.Tensor:
    """Return soft-capped logits, cap tanh(logits / cap)."""
    return (logits / cap).tanh_().mul_(cap)


def _effective(module: torch.nn.Module, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weight and bias of a linear module from its outputs for zero and the unit vectors."""
    width = like.shape[2]
    bias = module.forward(like.new_zeros(1, 1, width))[0, 0]
    weight = bias.new_empty(len(bias), width)
    step = max(1, _IDENTITY_BYTES // (4 * len(bias)))
    for start in range(0, width, step):
        units = torch.eye(min(step, width - start), width, dtype=like.dtype, device=like.device)
        weight[:, start : start + step] = (module.forward(units.roll(start, 1)[None])[0] - bias).T
    return weight, bias if bool(bias.any()) else None


def _stand_in(last: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return a replacement for the head's output (samples, 1, vocab), evenly spread and different for each sample.

    It is scaled to some real logits: smaller values would not reveal a cap, larger ones not a constant.
    """
    some = slice(None, None, max(1, len(weight) // 64))
    made = torch.nn.functional.linear(last, weight[some], None if bias is None else bias[some])
    size = made.double().nan_to_num(0.0, 0.0, 0.0).square().mean().sqrt()
    vocab = len(weight)
    words = torch.arange(vocab, dtype=torch.int64, device=weight.device) * 40_503 % 65_536  # without visible order
    row = ((words / 2.0**15 - 1.0) * torch.where(size > 0, _SPREAD * size, 1.0)).to(made.dtype)
    return row.repeat(1 - (-len(last) // vocab)).unfold(0, vocab, 1)[: len(last), None]  # each begins one later


def _product(last: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.linear(last.to(weight.dtype), weight, bias)


def _numbers(configs: list[Any], names: tuple[str, ...]) -> list[float]:
    """Return the nonzero numbers under `names` in the configurations."""
    values: dict[Any, None] = dict.fromkeys(getattr(config, name, None) for config in configs for name in names)
    return [float(value) for value in values if type(value) in (int, float) and value != 0]
