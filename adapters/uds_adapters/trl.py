"""Batch selection for TRL's SFTTrainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _python_version  # noqa: F401
from .trainer_mixin import UDSTrainerMixin

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer
else:
    SFTTrainer = object  # UDSSFTTrainer is created on first access, so that importing this module does not import TRL

__all__ = ["UDSSFTTrainer"]

_DOC = """`trl.SFTTrainer` with a policy, for every batch mode of TRL.

The mode determines what a *sample* is: a row of a padded batch; a document with `padding_free`, and with `packing`
too (strategy `bfd`, TRL's own), where `per_device_train_batch_size` counts packed rows of several documents each; a
block of `max_length` tokens, possibly of several documents, with the packing strategy `wrapped`.

Parameters
----------
policy
    Any `uds_core` policy.
*args, **kwargs
    Those of `UDSTrainerMixin` and of `trl.SFTTrainer`.

Notes
-----
TRL trains with a fused LM head and computes no logits. The scoring pass does not use the fused head: it runs the
model's own head, at one position, and stores its input. TRL's metrics (`num_tokens`, `entropy`, `mean_token_accuracy`)
describe the chosen samples.
"""

if TYPE_CHECKING:

    class UDSSFTTrainer(UDSTrainerMixin, SFTTrainer):
        """`trl.SFTTrainer` with a policy."""


def __getattr__(name: str) -> Any:
    if name != "UDSSFTTrainer":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from trl.trainer.sft_trainer import SFTTrainer

    globals()[name] = type(name, (UDSTrainerMixin, SFTTrainer), {"__doc__": _DOC, "__module__": __name__})
    return globals()[name]
