"""Batch selection for the Hugging Face Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _python_version  # noqa: F401
from .trainer_mixin import UDSTrainerMixin

__all__ = ["UDSTrainer", "UDSTrainerMixin"]

if TYPE_CHECKING:
    from transformers import Trainer

    class UDSTrainer(UDSTrainerMixin, Trainer):
        """`transformers.Trainer` with a policy; see `UDSTrainerMixin`."""


def __getattr__(name: str) -> Any:
    # created on first access, so that importing the mixin does not import transformers
    if name != "UDSTrainer":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from transformers import Trainer

    members = {"__doc__": UDSTrainerMixin.__doc__, "__module__": __name__}
    globals()[name] = type(name, (UDSTrainerMixin, Trainer), members)
    return globals()[name]
