"""A second device for PyTorch in Python alone: real values, no silent transfers, and a record of all that it does.

Its tensors are plain `torch.Tensor` of the device "second:0", whose values are tensors of the CPU. Each operation is
recorded: a launch, a view, a copy to the device, or a read, for which the host waits on a GPU. It is registered for the
whole process and cannot be taken back, so it is for processes of their own (`spawned`).
"""

import functools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

NAME = "second"
ROOT = Path(__file__).parents[2]
_KEY = "PrivateUse1"
_COPIES = {"copy_", "_to_copy", "_copy_from"}
# results whose size depends on values, checks of errors, and values that Python asks for
_READS = {"_local_scalar_dense", "nonzero", "nonzero_static", "masked_select", "is_nonzero", "equal", "bincount"}
_READS |= {"_unique", "_unique2", "unique_dim", "unique_consecutive", "_linalg_check_errors", "linalg_eigvals", "lstsq"}
_INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
_NO_KERNEL = ("empty", "new_empty", "_unsafe_view", "resize_", "alias", "lift_fresh", "_local_scalar_dense")
_KEPT: list[Any] = []  # registrations last as long as these objects


class Event(NamedTuple):
    """What the device did: kind (launch, view, read, upload, waiting upload), operation, and the line that asked."""

    kind: str
    operation: str
    line: str = ""


class Record:
    """Events while a `recorded` block runs; those of a module given to `apart` are counted elsewhere."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.elsewhere: list[Event] = []
        self._inside = 0

    def count(self, *kinds: str) -> int:
        """Number of the events of these kinds."""
        return sum(event.kind in kinds for event in self.events)

    def lines(self, *kinds: str) -> dict[str, int]:
        """How often each line caused events of these kinds, most often first."""
        found = Counter(f"{event.line} ({event.operation})" for event in self.events if event.kind in kinds)
        return dict(found.most_common())

    def add(self, event: Event) -> None:
        """Add an event."""
        (self.elsewhere if self._inside else self.events).append(event)

    @contextmanager
    def apart(self, module: torch.nn.Module) -> Iterator[None]:
        """Count what happens in the forward pass of `module` elsewhere."""

        def enter(*_: Any) -> None:
            self._inside += 1

        def leave(*_: Any) -> None:
            self._inside -= 1

        hooks = module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


_records: list[Record] = []


@contextmanager
def recorded() -> Iterator[Record]:
    """Record all events of the block."""
    record = Record()
    _records.append(record)
    try:
        yield record
    finally:
        _records.remove(record)


def is_available() -> bool:
    """Whether this PyTorch has devices that are written in Python (2.10 and later)."""
    return hasattr(getattr(torch._C, "_acc", None), "create_empty_tensor")


def install() -> torch.device:
    """Register the device in this process, once."""
    if not _KEPT:
        from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

        class Module(_DummyBackendModule):
            def get_amp_supported_dtype(self) -> list[torch.dtype]:
                return [torch.float16, torch.bfloat16]

        _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
        _KEPT.extend(_registrations())
    return torch.device(NAME, 0)


def to_device(model: torch.nn.Module) -> torch.nn.Module:
    """Move a model: `Module.to` would make parameters of tensors that Python knows already, which PyTorch refuses."""
    moved: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved.setdefault(id(parameter), _parameter(parameter))
                module._parameters[name] = moved[id(parameter)]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(NAME)
    return model


def _parameter(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    made = _wrapped(parameter.detach().clone())
    made.__class__ = torch.nn.Parameter
    return made.requires_grad_(parameter.requires_grad)  # type: ignore[return-value]


def _wrapped(values: torch.Tensor) -> torch.Tensor:
    made = torch._C._acc.create_empty_tensor(  # pyright: ignore[reportAttributeAccessIssue]
        tuple(values.shape), values.dtype
    )
    made.untyped_storage().values = values  # at the storage, which copies that autograd saves share
    return made


def _is_here(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.device.type == NAME


def _values(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.untyped_storage().values if _is_here(x) else x


def _registrations() -> Iterator[Any]:
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(_run, _KEY)
    yield everything
    aten = torch.library.Library("aten", "IMPL")
    names: set[str] = set()
    for key in ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"):  # these precede a fallback
        names.update(torch._C._dispatch_get_registrations_for_dispatch_key(key))
    for full in sorted(name for name in names if name.startswith("aten::")):
        name, _, overload = full.removeprefix("aten::").partition(".")
        operation = getattr(getattr(torch.ops.aten, name, None), overload or "default", None)
        if operation is not None:
            aten.impl(operation, functools.partial(_run, operation), _KEY)
    yield aten


def _run(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute an operation on the values of its tensors, and record it."""
    name = operation._schema.name.removeprefix("aten::")
    leaves, structure = tree_flatten((args, kwargs))
    target = next((x for x in leaves if isinstance(x, torch.device)), None)
    host = [x for x in leaves if isinstance(x, torch.Tensor) and not _is_here(x)]
    if any(x.ndim for x in host) and name not in _COPIES | _INDEXING:
        given = [(x.device.type, tuple(x.shape)) for x in leaves if isinstance(x, torch.Tensor)]
        msg = f"{name} mixes devices at {_line()}: {given}"
        raise RuntimeError(msg)
    to_host = target is not None and target.type == "cpu"
    event = Event(_kind(operation, name, leaves, host, to_host=to_host), name)
    if _records:
        event = event._replace(line=_line() if event.kind in ("read", "waiting upload") else "")
        for record in _records:
            record.add(event)
    given, options = tree_unflatten([_values(x) for x in leaves], structure)
    if name in ("view", "_unsafe_view") and not isinstance(given[1], torch.dtype):
        result = given[0].reshape(*given[1:])  # these tensors are contiguous to Python, their values need not be
    elif name == "view":
        result = given[0].contiguous().view(*given[1:])
    else:
        result = operation(*given, **options)
    written = [argument for argument in operation._schema.arguments if _is_written(argument)]
    if written and operation._schema.returns:
        outputs = [_given(operation, argument.name, args, kwargs) for argument in written]
        return outputs[0] if len(operation._schema.returns) == 1 else tuple(outputs)
    return tree_map(lambda x: _wrapped(x) if isinstance(x, torch.Tensor) and not to_host else x, result)


def _kind(operation: Any, name: str, leaves: list[Any], host: list[torch.Tensor], *, to_host: bool) -> str:
    if name in _COPIES:
        return _kind_of_copy(name, leaves, host, to_host=to_host)
    by_mask = any(isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8) for x in leaves)
    unknown_size = name == "repeat_interleave" and not any(isinstance(x, int) for x in leaves)
    if name in _READS or unknown_size or (name in _INDEXING and by_mask):
        return "read"
    if any(x.ndim for x in host):
        return "waiting upload"  # indices of the host
    return "view" if name.startswith(_NO_KERNEL) or _is_view(operation) else "launch"


def _kind_of_copy(name: str, leaves: list[Any], host: list[torch.Tensor], *, to_host: bool) -> str:
    into_host = name == "copy_" and not _is_here(leaves[0])
    if to_host or into_host or (name == "_copy_from" and _is_here(leaves[0]) and host):
        return "read"
    if not host:
        return "launch"
    return "upload" if any(x is True for x in leaves) else "waiting upload"  # non_blocking


def _is_view(operation: Any) -> bool:
    returns = operation._schema.returns
    return any(one.alias_info is not None and not one.alias_info.is_write for one in returns)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _given(operation: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = [argument.name for argument in operation._schema.arguments]
    place = names.index(name)
    return args[place] if place < len(args) else kwargs[name]


def _line() -> str:
    """The line of the project that asked, outside of the tests."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith((f"{ROOT}/uds_core", f"{ROOT}/adapters", f"{ROOT}/benchmarks")):
            return f"{file.removeprefix(f'{ROOT}/')}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return ""
