"""`uds train`: a model is fine-tuned with one policy through TRL, and kept."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import options
from ..console.config_file import FILE, continued, loaded, resolved, unchanged, write
from ..console.options import Json, Output, Overwrite, Seed, grouped, option, output, training
from ..console.terminal import bar, console, telling
from ..data.source import Source

if TYPE_CHECKING:
    from .settings import Training

__all__ = ["train"]

_FREE = ("threads", "report_to", "save_every", "checkpoints")  # what a resumed run may have otherwise

_selection = functools.partial(option, panel="Selection")


def how(
    *,
    policy: Annotated[str, _selection("Such as uds or uds:alpha=0.5,dim=256.")] = "uds",
    keep: Annotated[float, _selection("Share of the candidates that is trained on, in (0, 1].")] = 0.25,
    scope: Annotated[str, _selection("micro: each batch is chosen from; step: all batches of a step are one pool.")] = (
        "micro"
    ),
    start_step: Annotated[int, _selection("First step that selects; those before train on all candidates.")] = 0,
    every: Annotated[int, _selection("Steps from one that selects to the next.")] = 1,
    keep_schedule: Annotated[
        str, _selection("constant; linear or cosine: from --keep-initial to --keep.")
    ] = "constant",
    keep_initial: Annotated[float, _selection("Share kept at first, with linear or cosine.")] = 1.0,
    keep_steps: Annotated[
        int | None, _selection("Selecting steps until --keep is reached.", show_default="half of them")
    ] = None,
    steps: Annotated[int | None, training("Optimizer steps, in place of --epochs.")] = None,
    epochs: Annotated[float, training("Passes over the candidates.")] = 1.0,
    batch_size: Annotated[int, training("CANDIDATES a batch, not samples trained on.")] = 16,
    accumulate: Annotated[int, training("Batches a step.")] = 1,
    learning_rate: Annotated[float | None, training("Its peak.", show_default="2e-4 with --lora, else 5e-5")] = None,
    lora: Annotated[bool, training("Train low-rank adapters in place of all weights.", "--lora")] = False,
    lora_rank: Annotated[int, training("Rank of the adapters.")] = 8,
    bf16: Annotated[bool, training("Compute in bfloat16; the weights stay in float32.", "--bf16")] = False,
    gradient_checkpointing: Annotated[
        bool, training("Recompute activations: less memory, slower.", "--gradient-checkpointing")
    ] = False,
    trl: Annotated[
        list[str], training("name=value: any other argument of trl.SFTConfig, as packing=true; several times.")
    ] = [],  # noqa: B006 - typer copies it
    seed: Seed = 0,
    eval_every: Annotated[int | None, output("Steps between evaluations.", show_default="about 8 a run")] = None,
    save_every: Annotated[int | None, output("Steps between checkpoints.", show_default="about 4 a run")] = None,
    checkpoints: Annotated[int, output("How many are kept, the latest.")] = 1,
    report_to: Annotated[list[str], output("A tracker, such as tensorboard or wandb; several times.")] = [],  # noqa: B006
) -> "Training":
    """How it is trained."""
    given = dict(locals())
    from ..policy_spec import pair
    from .settings import Training

    given["learning_rate"] = (2e-4 if lora else 5e-5) if learning_rate is None else learning_rate
    given["lora_rank"] = lora_rank if lora else None
    given["trl"] = dict(pair(text, option="--trl") for text in trl)
    return Training(**{name: value for name, value in given.items() if name in Training.__dataclass_fields__})


@grouped(source=options.without(options.source, "choices_field"), training=how)
def train(
    *,
    context: typer.Context,
    config: Annotated[  # noqa: ARG001 - its callback takes it
        Path | None, output("YAML of these options, which the command line overrides.", callback=loaded, is_eager=True)
    ] = None,
    resume: Annotated[
        Path | None, output("Go on in this folder, from its last checkpoint.", callback=continued, is_eager=True)
    ] = None,
    source: Source,
    training: "Training",
    threads: Annotated[
        int | None, options.training("Of the CPU; 1 is steady on a busy machine.", show_default="PyTorch's choice")
    ] = None,
    audit: Annotated[bool, output("Write down every candidate's score and fate.")] = True,
    output: Output = Path("uds-train"),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fine-tune a model with one policy through TRL and save it; with --lora, its adapters alone.

    The output folder holds config.yaml, which repeats the run, checkpoints, the audit, and the model. Ctrl-C ends the
    step, saves a checkpoint and says how to go on. --holdout 0 trains on all records.

    Examples
    --------
    uds train --model MODEL --data train.jsonl --keep 0.25 --lora
    uds train --config run.yaml --seed 1 --output second
    uds train --resume uds-train
    """
    from .job import Job

    if resume is not None:
        unchanged(context, resume, free=_FREE)
    with telling(machine=json) as tell:
        job = Job.prepare(source, training, folder=output, resume=resume is not None, overwrite=overwrite)
        if job.finished is not None:
            console.print(f"The run in {output} is finished already.", soft_wrap=True)
            return tell(job.finished)
        write(resolved(context), output / FILE, note="uds train --config THIS_FILE --output ANOTHER_FOLDER")
        console.print(job.words())
        with bar(training.policy, total=job.steps) as after_step:
            result = job.run(threads=threads, audit=audit, after_step=after_step)
        console.print(*result["words"], sep="\n", soft_wrap=True, highlight=False, markup=False)
        return tell(result)
