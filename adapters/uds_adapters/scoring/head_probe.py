"""Forward hook at a model's LM head, and context managers for passes without side effects."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

__all__ = ["HeadProbe", "evaluating", "outside_autocast", "undisturbed"]


class HeadProbe:
    """Store the input of `head` while entered, and run the head at the last position only, without full logits.

    Parameters
    ----------
    head
        The module that computes logits from hidden states.
    inside
        Called with the head's arguments for that position, just before the head runs: the only place where sharded
        training (FSDP2, ZeRO-3) has the whole weight. If its result has `stands_in` set, the head runs on no
        position, and `raw` of the result replaces the output, repeated over the samples.

    Attributes
    ----------
    hidden
        The head's input (batch, time, width). None for any other input, or if the head ran more than once.
    result
        The value that `inside` returned.
    calls
        How often the head ran; zero when compiled modules skip hooks that are set later.
    cut
        Whether the logits lack positions.

    Notes
    -----
    The last position is used because the first may be equal in all samples, or contain only padding.
    """

    def __init__(self, head: torch.nn.Module, inside: Callable[..., Any] | None = None) -> None:
        self.head, self.inside = head, inside
        self.hidden: torch.Tensor | None = None
        self.result: Any = None
        self.calls = 0
        self.cut = False

    def __enter__(self) -> HeadProbe:
        self._hooks = [self.head.register_forward_pre_hook(self._on_input, with_kwargs=True)]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _on_input(
        self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any] | None:
        self.calls += 1
        name = "" if args else next(iter(kwargs), "")
        hidden = args[0] if args else kwargs.get(name)
        if self.calls > 1 or not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
            self.hidden = None
            return None
        # contiguous, because torch multiplies other layouts by frozen weights ten times as slowly
        self.hidden, self.cut, last = hidden, True, hidden[:, -1:].contiguous()
        if self.inside is not None:
            options = {option: value for option, value in kwargs.items() if option != name}
            self.result = self.inside(last, *args[1:], **options)
            if getattr(self.result, "stands_in", False):
                last = last[:, :0]
                self._hooks.append(self.head.register_forward_hook(self._replace))
        return ((last, *args[1:]), kwargs) if args else (args, {**kwargs, name: last})

    def _replace(self, _module: torch.nn.Module, _args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        self._hooks.pop().remove()
        raw = self.result.raw
        repeated = raw.repeat(-(-len(output) // max(len(raw), 1)), 1, 1)  # a copy: some models change it in place
        return repeated[: len(output)]


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Set evaluation mode; on exit restore the mode of every module, which may differ between modules."""
    training = _in_training(model)
    for module in training:
        vars(module)["training"] = False  # setting an attribute of a module checks parameters first, which is slow
    try:
        yield
    finally:
        for module in training:
            vars(module)["training"] = True


def _in_training(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the modules in training mode. `model.modules()` also builds names, which is slow with LoRA."""
    known, waiting, training = {id(model)}, [model], []
    while waiting:
        module = waiting.pop()
        if module.training:
            training.append(module)
        for child in module._modules.values():
            if child is not None and id(child) not in known:
                known.add(id(child))
                waiting.append(child)
    return training


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Set evaluation mode without gradients; on exit, also by an error, restore flags and random generators.

    Few models use random numbers in evaluation mode, but hashing and sampled attention do, and would change a run.
    """
    parameters = model.parameters() if torch.cuda.is_initialized() else ()
    devices = sorted({parameter.device.index for parameter in parameters if parameter.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is meant
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), evaluating(model):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.clear_autocast_cache()  # older torch would reuse weights cast without gradients in the training pass


@contextlib.contextmanager
def outside_autocast(like: torch.Tensor) -> Iterator[None]:
    """Disable autocast and gradients, so that arithmetic on scores uses the dtypes it requests."""
    with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        yield
