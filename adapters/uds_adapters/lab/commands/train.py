"""`uds train`: one policy, and the model is kept."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from pathlib import Path
from typing import Annotated

from .. import options
from ..options import Output, Overwrite, Seed, grouped, training
from ..settings import Settings, Source
from ..terminal import console

__all__ = ["train"]


@grouped(source=options.source, settings=options.settings)
def train(
    *,
    source: Source,
    settings: Settings,
    policy: Annotated[str, training("The policy.")] = "uds",
    seed: Seed = 0,
    output: Output = Path("uds-train"),
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a model with one policy and save it, with --lora its adapters. --holdout 0 trains on all records."""
    from .runs import checked, finish, train_all

    task = checked(source, settings, policies=[policy], seeds=[seed], output=output, overwrite=overwrite)
    results = train_all(task, policies=[policy], seeds=[seed], settings=settings, output=output, save_model=True)
    finish(task, results, source=source, settings=settings, output=output)
    console.print(
        f"The {'adapters' if settings.lora_rank else 'model'} and the tokenizer are in {output}", soft_wrap=True
    )
