"""`uds train`: fine-tune a model with one policy and save it."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import options
from ..console.config_file import FILE, continued, loaded, resolved, unchanged, write
from ..console.options import Json, Output, Overwrite, Seed, grouped, option, output, training
from ..console.terminal import bar, console, hint_at_allocator, telling
from ..data.source import Source
from ..locks import locked_folder
from ..storage import temporary_folder
from ..training.settings import Settings

if TYPE_CHECKING:
    from ..training.trainer_options import TrainerOptions

__all__ = ["train"]

_FREE = ("threads", "report_to", "save_every", "checkpoints")  # what a resumed run may have otherwise

_selection = functools.partial(option, panel="Selection")


def trainer_options(
    *,
    scope: Annotated[str, _selection("micro: each batch is chosen from; step: all batches of a step are one pool.")] = (
        "micro"
    ),
    start_step: Annotated[int, _selection("First step that selects; those before train on all candidates.")] = 0,
    every: Annotated[int, _selection("Steps from one that selects to the next.")] = 1,
    keep_schedule: Annotated[
        str, _selection("constant; linear or cosine: from --keep-initial to --keep.")
    ] = "constant",
    keep_initial: Annotated[float, _selection("Fraction kept at first, with linear or cosine.")] = 1.0,
    keep_steps: Annotated[
        int | None, _selection("Selecting steps until --keep is reached.", show_default="half of them")
    ] = None,
    accumulate: Annotated[int, training("Batches per step, each of --batch-size candidates.")] = 1,
    gradient_checkpointing: Annotated[
        bool, training("Recompute activations: less memory, slower.", "--gradient-checkpointing")
    ] = False,
    trl: Annotated[
        list[str],
        training(
            "name=value: train with TRL's SFTTrainer, and this argument of trl.SFTConfig, as packing=true; several "
            "times."
        ),
    ] = [],  # noqa: B006 - typer copies it
    save_every: Annotated[int | None, output("Steps between checkpoints.", show_default="about 4 a run")] = None,
    checkpoints: Annotated[int, output("Number of checkpoints that are kept, the latest.")] = 1,
    report_to: Annotated[list[str], output("A tracker, such as tensorboard or wandb; several times.")] = [],  # noqa: B006
) -> "TrainerOptions":
    """Return when a run selects, and what it writes."""
    given = dict(locals())
    from ..policy_spec import pair
    from ..training.trainer_options import TrainerOptions

    return TrainerOptions(**{**given, "trl": dict(pair(text, option="--trl") for text in trl)})


@grouped(
    source=options.without(options.source, "choices_field"),
    settings=options.without(options.settings, "budget", "metrics", "answer_tokens"),
    trainer_options=trainer_options,
)
def train(
    *,
    context: typer.Context,
    policy: Annotated[str, _selection("Such as uds or uds:alpha=0.5,dim=256.")] = "uds",
    source: Source,
    trainer_options: "TrainerOptions",
    settings: Settings,
    seed: Seed = 0,
    audit: Annotated[bool, output("Log every candidate's score and whether it was selected.")] = True,
    config: Annotated[  # noqa: ARG001 - its callback takes it
        Path | None, output("YAML of these options, which the command line overrides.", callback=loaded, is_eager=True)
    ] = None,
    resume: Annotated[
        Path | None,
        output("Resume the run in this folder from its last checkpoint.", callback=continued, is_eager=True),
    ] = None,
    output: Output = Path("uds-train"),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fine-tune a model with one policy, exactly as `uds compare` does, and save it; with --lora, its adapters alone.

    The output folder holds config.yaml, which repeats the run, data.html, which shows what is trained on, checkpoints,
    the audit, and the model. Ctrl-C finishes
    the step, saves a checkpoint and says how to resume. --holdout 0 trains on all records.

    Examples
    --------
    uds train --model MODEL --data train.jsonl --keep 0.25 --lora
    uds train --config run.yaml --seed 1 --output second
    uds train --resume uds-train

    A run.yaml, with options of this command as keys:
    model: uds-demo/model
    data: uds-demo/train.jsonl
    policy: uds:alpha=0.5
    keep: 0.25
    """
    from .data_page import write_data_page
    from .job import Job

    with telling(machine=json) as tell, locked_folder(output), temporary_folder(output / "examples.tmp") as examples:
        if resume is not None:
            unchanged(context, resume, free=_FREE)
        job = Job.prepare(
            source,
            policy=policy,
            seed=seed,
            settings=settings,
            trainer_options=trainer_options,
            folder=output,
            resume=resume is not None,
            overwrite=overwrite,
            examples=examples,
        )
        if job.finished is not None:
            console.print(f"The run in {output} is finished already.", soft_wrap=True, markup=False)
            return tell(job.finished)
        write(resolved(context), output / FILE, note="uds train --config THIS_FILE --output ANOTHER_FOLDER")
        hint_at_allocator()
        page = write_data_page(source, output, encoder=job.task.encoder)
        console.print(job.words(), highlight=False, markup=False)
        console.print(f"What is trained on: {page}", soft_wrap=True, highlight=False, markup=False)
        with bar(policy, total=job.steps) as after_step:
            result = job.run(audit=audit, after_step=after_step)
        console.print(*result["words"], sep="\n", soft_wrap=True, highlight=False, markup=False)
        return tell(result)
