"""A look into a model's forward pass at its LM head, and a pass that leaves no trace."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

__all__ = ["HeadProbe", "evaluating", "outside_autocast", "undisturbed"]


class HeadProbe:
    """While entered: keeps what goes into `head`, and hands the head its last position only: no logits are made.

    Parameters
    ----------
    head
        The module that makes logits of hidden states.
    inside
        Called with the head's arguments for that one position, right before the head runs: the one place where sharded
        training (FSDP2, ZeRO-3) shows the whole weight. Where what it returns `stands_in`, the head is handed no
        position at all, and its `raw` is put in place of the output, repeated over the samples.

    Attributes
    ----------
    hidden
        (batch, time, width), what went in. None where that was anything else, or more than one.
    seen
        What `inside` returned.
    calls
        How often the head ran. Never: compiled modules pass hooks by that are set later.
    cut
        Whether the logits lack positions.

    Notes
    -----
    The last position, for in the first one all samples may be the same, or hold nothing but padding.
    """

    def __init__(self, head: torch.nn.Module, inside: Callable[..., Any] | None = None) -> None:
        self.head, self.inside = head, inside
        self.hidden: torch.Tensor | None = None
        self.seen: Any = None
        self.calls = 0
        self.cut = False

    def __enter__(self) -> HeadProbe:
        self._hooks = [self.head.register_forward_pre_hook(self._keep, with_kwargs=True)]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        self.calls += 1
        name = "" if args else next(iter(kwargs), "")
        hidden = args[0] if args else kwargs.get(name)
        if self.calls > 1 or not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
            self.hidden = None
            return None
        # contiguous: torch multiplies others by frozen weights ten times as slowly
        self.hidden, self.cut, last = hidden, True, hidden[:, -1:].contiguous()
        if self.inside is not None:
            others = {other: value for other, value in kwargs.items() if other != name}
            self.seen = self.inside(last, *args[1:], **others)
            if getattr(self.seen, "stands_in", False):
                last = last[:, :0]
                self._hooks.append(self.head.register_forward_hook(self._replace))
        return ((last, *args[1:]), kwargs) if args else (args, {**kwargs, name: last})

    def _replace(self, _module: torch.nn.Module, _args: tuple[Any, ...], nothing: torch.Tensor) -> torch.Tensor:
        self._hooks.pop().remove()
        raw = self.seen.raw
        return raw[torch.arange(len(nothing), device=raw.device) % len(raw)]  # a copy: some models change it in place


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is as it was, also those that were in evaluation mode before."""
    training = _in_training(model)
    for module in training:
        vars(module)["training"] = False  # setting an attribute of a module looks for parameters first: slow
    try:
        yield
    finally:
        for module in training:
            vars(module)["training"] = True


def _in_training(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules in training mode. `model.modules()` makes names too, which takes a while where there is LoRA."""
    known, waiting, found = {id(model)}, [model], []
    while waiting:
        module = waiting.pop()
        if module.training:
            found.append(module)
        for child in module._modules.values():
            if child is not None and id(child) not in known:
                known.add(id(child))
                waiting.append(child)
    return found


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards flags and global random generators are as before, also on errors.

    Few models draw in evaluation mode, but those that do (hashing and sampled attention) would shift a run's numbers.
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
        torch.clear_autocast_cache()  # older torch would hand the weights cast without gradients to the training pass


@contextlib.contextmanager
def outside_autocast(like: torch.Tensor) -> Iterator[None]:
    """For arithmetic on scores: without gradients, and in the dtypes that it asks for."""
    with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        yield
