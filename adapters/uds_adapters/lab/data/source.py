"""Sources of a task: model folder, data files, and how records become text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .. import model_paths
from ..errors import LabError
from .answers import check_train_on
from .fields import Fields
from .files import fingerprint
from .template import DEFAULT_TEMPLATE, Template

__all__ = ["DEFAULT_TEMPLATE", "Source"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a task comes from, as the user said it.

    Parameters
    ----------
    model
        Folder of the model and its tokenizer, or of LoRA adapters; see `locate`.
    data, eval_data
        Files, folders or patterns; without the second, a fraction `holdout` of the first is held out (0: nothing is).
    limit, eval_limit
        Use only so many records of training, and so many that are held out; without the second, of `holdout` in
        proportion to the first.
    fields
        Names of the fields of a record.
    template
        How prompt and completion are joined; see `Template`.
    train_on
        ``last`` or ``all``: of a conversation, the last answer carries loss, or all of the assistant's.
    max_length
        Tokens after which a sample is cut.
    aside
        Share of the training records that no policy may choose, kept for those that need samples of their own.
    reference_model
        Folder of the model whose losses RHO-Loss compares with; None: the model itself, trained on what is set aside.
    target
        Files of examples of what the model must do, for policies that choose what resembles them.
    """

    model: Path
    data: Path
    eval_data: Path | None = None
    holdout: float = 0.1
    limit: int | None = None
    eval_limit: int | None = None
    fields: Fields = field(default_factory=Fields)
    template: str = DEFAULT_TEMPLATE
    train_on: str = "last"
    max_length: int = 512
    aside: float = 0.0
    reference_model: Path | None = None
    target: Path | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "eval_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"`{name}` must be at least 1, got {value}"
                raise LabError(msg)
        Template(self.template)
        check_train_on(self.train_on)
        if not 0.0 <= self.aside < 1.0:
            msg = f"`aside` must be a fraction in [0, 1), got {self.aside}: 0.1 sets aside a tenth of the records"
            raise LabError(msg)

    def fingerprints(self) -> dict[str, str]:
        """Return the hashes of the files and folders that it names, by which a result is known to belong to it."""
        files = {"data": self.data, "eval_data": self.eval_data, "target": self.target}
        models = {"model": self.model, "reference_model": self.reference_model}
        return {
            **{name: fingerprint(file) for name, file in files.items() if file is not None},
            **{name: model_paths.fingerprint(folder) for name, folder in models.items() if folder is not None},
        }
