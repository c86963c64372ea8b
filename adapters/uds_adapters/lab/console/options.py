"""Shared CLI options, in groups.

A group is a function from options to the value that they describe; `grouped` puts its options in the place of an
argument of a command. Libraries were tried in place of `grouped` and `config_file`. jsonargparse 4 prefixes options
and YAML keys with the group (``--settings.keep``), and names an unknown key without the known ones; tyro 1 reads no
YAML; pydantic-settings 2 has one flat class for all options. Each replaces typer's subcommands, help and error panels,
none prints the examples of the help unwrapped, and none compares the options of a resumed run with those it started
with, so that most of `config_file` would stay.
"""

# No `from __future__ import annotations`: typer reads them when the command line is built.

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.fields import FORMATS, Fields
from ..data.named import STANDARD_INPUT, as_files
from ..data.source import DEFAULT_TEMPLATE, Source
from ..errors import LabError
from ..model_paths import as_path_or_name, check_model, locate
from ..training.settings import Settings

__all__ = [
    "MODEL",
    "NAMES",
    "Jobs",
    "Json",
    "Output",
    "Overwrite",
    "Seed",
    "Seeds",
    "grouped",
    "located",
    "option",
    "output",
    "policy_names",
    "settings",
    "source",
    "training",
    "without",
]

NAMES = (
    "full", "random", "longest", "shortest", "uds", "nuclearonly", "diversityonly", "fresh", "frobenius", "reference",
    "maxloss", "maxgrad", "rholoss", "lossdrop", "lossema", "selectivebackprop", "entropy", "quadrants", "divbs",
    "greats", "predicted", "progress", "cascade", "infobatch", "targeted", "rds",
)  # fmt: skip
"""Of the policies that come with `uds_core`, which is not imported for help."""
_SHOWN_TEMPLATE = DEFAULT_TEMPLATE.replace("\n", r"\n")


def option(text: str, /, *names: str, panel: str, **more: Any) -> Any:
    """A typer option with help `text`, shown under the heading `panel`."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


_data = functools.partial(option, panel="Data")
training = functools.partial(option, panel="Training")
output = functools.partial(option, panel="Output")

MODEL: dict[str, Any] = {"parser": as_path_or_name, "metavar": "MODEL"}
"""Of an option that names a model; see `located`."""

Seed = Annotated[int, training("Seed of the candidates' order, adapters and held-out split; with --seeds, the first.")]
Seeds = Annotated[int, training("Number of seeds; every policy runs once per seed.")]
policy_names = functools.partial(
    option,
    f"Such as uds or uds:alpha=0.5,dim=256; give it several times. Names: {', '.join(NAMES)}, and yours.",
    "--policy",
    panel="Policy",
)
Output = Annotated[Path, output("Folder for the results; a run with the same options is resumed there.")]
Overwrite = Annotated[bool, output("Start again, even if the folder holds files.", "--overwrite")]
Jobs = Annotated[
    int | None,
    training("Parallel runs, each a process; on the CPU each uses 1 thread.", show_default="one per GPU, else 1"),
]
Json = Annotated[bool, output("Print one JSON object on stdout; text for people goes to stderr.", "--json")]


def located(model: Path | str, /) -> Path:
    """Return the folder of the model that an option names, checked; say on stderr what is unpacked."""
    folder = locate(model, notice=lambda text: typer.echo(text, err=True))
    check_model(folder)
    return folder


def source(
    *,
    model: Annotated[
        Path,
        _data(
            "Folder of a model, or of LoRA adapters, which are merged into their base; GGUF file; name on the Hugging "
            "Face Hub; or smollm2.",
            **MODEL,
        ),
    ],
    data: Annotated[
        Path,
        _data(
            "JSONL, JSON, CSV or Parquet; a folder or a pattern of such files, or a folder that datasets saved; - for "
            "standard input; or owner/name:split on the Hugging Face Hub."
        ),
    ],
    eval_data: Annotated[Path | None, _data("Held-out records, in place of --holdout.")] = None,
    target: Annotated[
        Path | None,
        _data("Records of what the model must do, such as a hundred, for targeted and rds."),
    ] = None,
    holdout: Annotated[float, _data("Fraction of the records that is held out; 0: none.")] = 0.1,
    limit: Annotated[
        int | None, _data("Use only the first N training records, and of --holdout the same fraction.")
    ] = None,
    eval_limit: Annotated[int | None, _data("Use only the first N held-out records.")] = None,
    prompt_field: Annotated[str, _data("Field of the prompt.")] = "prompt",
    completion_field: Annotated[str, _data("Field of the completion, which is trained on.")] = "completion",
    messages_field: Annotated[
        str, _data("Field of the messages, of which the assistant's are trained on.")
    ] = "messages",
    text_field: Annotated[str, _data("Field of the text, all of which is trained on.")] = "text",
    choices_field: Annotated[str, _data("Field of the choices, a list of strings, for --metric accuracy.")] = "choices",
    data_format: Annotated[
        str, _data(f"Format of the records: {', '.join(FORMATS)}.", "--format", show_default="each record's own")
    ] = "auto",
    columns: Annotated[
        list[str],
        _data("name=field, such as context=passage; several times. Names: prompt, context, completion, history, ..."),
    ] = [],  # noqa: B006 - typer copies it
    template: Annotated[
        str, _data(r"How prompt and completion are joined; {field} is any field of the record, \n a new line.")
    ] = _SHOWN_TEMPLATE,
    train_on: Annotated[
        str, _data("last: the last answer of a conversation carries loss; all: all of the assistant's.")
    ] = "last",
    max_length: Annotated[int, _data("Maximum tokens of a sample; the rest is cut off.")] = 512,
) -> Source:
    """Return the source of a task. Files are checked first, since importing what reads them takes seconds."""
    folder = located(model)
    if (data, eval_data, target).count(STANDARD_INPUT) > 1:
        msg = (
            "only one of `--data`, `--eval-data` and `--target` can be standard input: write the others to files first"
        )
        raise LabError(msg)
    return Source(
        model=folder,
        data=as_files(data),
        eval_data=None if eval_data is None else as_files(eval_data),
        target=None if target is None else as_files(target),
        holdout=holdout,
        limit=limit,
        eval_limit=eval_limit,
        fields=Fields(
            prompt=prompt_field,
            completion=completion_field,
            messages=messages_field,
            text=text_field,
            choices=choices_field,
            format=data_format,
        ).mapped(columns),
        template=template.replace(r"\n", "\n"),
        train_on=train_on,
        max_length=max_length,
    )


def settings(
    *,
    keep: Annotated[float, training("Fraction of the candidates that is trained on, in (0, 1].")] = Settings.keep,
    steps: Annotated[int | None, training("Optimizer steps, in place of --epochs.")] = None,
    epochs: Annotated[float, training("Passes over the candidates.")] = Settings.epochs,
    batch_size: Annotated[
        int, training("CANDIDATES a step, not samples trained on (per_device_train_batch_size counts them too).")
    ] = Settings.batch_size,
    budget: Annotated[
        str,
        training("What all runs use equally: candidates, samples, tokens, processed, seconds=120; tokens=N."),
    ] = Settings.budget,
    learning_rate: Annotated[
        float | None, training("Peak learning rate.", show_default="2e-4 with --lora, else 5e-5")
    ] = None,
    lora: Annotated[
        bool, training("Train low-rank adapters in place of all weights: new ones, or those in --model.", "--lora")
    ] = False,
    lora_rank: Annotated[int, training("Rank of new adapters.")] = 8,
    bf16: Annotated[bool, training("Compute in bfloat16; the weights stay in float32.", "--bf16")] = False,
    eval_every: Annotated[int | None, training("Steps between evaluations.", show_default="about 8 a run")] = None,
    metrics: Annotated[
        list[str],
        training("Besides the loss: accuracy among choices, exact-match of generated answers.", "--metric"),
    ] = [],  # noqa: B006 - typer copies it
    answer_tokens: Annotated[int, training("Maximum tokens to generate, for exact-match.")] = Settings.answer_tokens,
    threads: Annotated[
        int | None, training("CPU threads; 1 is steady on a busy machine.", show_default="PyTorch's choice")
    ] = None,
) -> Settings:
    """Return the settings of a run."""
    usual = 2e-4 if lora else Settings.learning_rate
    return Settings(
        keep=keep,
        batch_size=batch_size,
        steps=steps,
        epochs=epochs,
        budget=budget,
        learning_rate=usual if learning_rate is None else learning_rate,
        lora_rank=lora_rank if lora else None,
        bf16=bf16,
        eval_every=eval_every,
        metrics=tuple(metric.replace("-", "_") for metric in metrics),
        answer_tokens=answer_tokens,
        threads=threads,
    )


def without(group: Callable[..., Any], /, *names: str) -> Callable[..., Any]:
    """Return the group without some of its options, which keep their defaults."""

    @functools.wraps(group)
    def fewer(**given: Any) -> Any:
        return group(**given)

    kept = [p for name, p in inspect.signature(group).parameters.items() if name not in names]
    fewer.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    return fewer


def grouped(**groups: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: in place of an argument named like a group, the command line takes the options of the group.

    Parameters
    ----------
    **groups
        Name of an argument of the command -> function that returns it from the options.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        taken = {name: inspect.signature(make).parameters for name, make in groups.items()}

        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            made = {name: groups[name](**{key: given.pop(key) for key in names}) for name, names in taken.items()}
            command(**made, **given)

        own = inspect.signature(command).parameters
        every = [p for name in own for p in (taken[name].values() if name in taken else [own[name]])]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in every]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate
