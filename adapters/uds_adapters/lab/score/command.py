"""`uds score`: scores of every record of a data set, and the best records."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from .. import storage
from ..console import options
from ..console.options import Json, grouped, option
from ..console.terminal import console, hint_at_allocator, rated, telling
from ..data.source import Source
from ..errors import Interrupted, LabError
from ..locks import locked_file

if TYPE_CHECKING:
    from ..data.jsonl import Window
    from .scorer import Process, Scoring

__all__ = ["score"]


def _scoring(text: str, /, *names: str, **more: Any) -> Any:
    return option(text, *names, panel="Scoring", **more)


@grouped(source=options.without(options.source, "eval_data", "eval_limit", "holdout", "choices_field"))
def score(
    *,
    policy: Annotated[str, _scoring("Such as uds, uds:alpha=0.5,dim=256 or maxloss.")] = "uds",
    keep: Annotated[str, _scoring("Records to keep: a fraction such as 0.25, or a number such as 500.")] = "0.25",
    rounds: Annotated[
        int, _scoring("Number of selection rounds, each compared with the records of those before.", min=1)
    ] = 16,
    subset: Annotated[Path | None, _scoring("Write the chosen records here: their own lines, in their order.")] = None,
    loss: Annotated[bool, _scoring("Also write each record's mean loss; computes the logits.", "--loss")] = False,
    adapter: Annotated[Path | None, _scoring("Folder of LoRA adapters to put on the model.")] = None,
    bf16: Annotated[bool, _scoring("Compute in bfloat16.", "--bf16")] = False,
    depth: Annotated[
        int | None,
        _scoring(
            "Decoder layers that run before the head; for near-duplicates, as fresh:by=logits.", show_default="all"
        ),
    ] = None,
    batch_tokens: Annotated[int, _scoring("Maximum tokens in a forward pass; halved if memory runs out.")] = 8192,
    window: Annotated[int, _scoring("Records that are sorted by length, and saved, together.")] = 512,
    source: Source,
    threads: Annotated[int | None, _scoring("CPU threads per process.", show_default="PyTorch's choice", min=1)] = None,
    seed: Annotated[int, _scoring("Of the policy.")] = 0,
    output: Annotated[Path, options.output("The Parquet file.")] = Path("scores.parquet"),
    overwrite: Annotated[bool, options.output("Replace existing files, and start again.", "--overwrite")] = False,
    json: Json = False,
) -> None:
    r"""Score every record of a data set with a policy, and select the best.

    The model is not trained; it reads each record once. Finished windows are saved beside the output, so the same
    command resumes an interrupted run. Several processes share the work.

    Examples
    --------
    uds score --model MODEL --data all.jsonl --keep 0.1 --subset best.jsonl
    accelerate launch --num_processes 8 -m uds_adapters.lab \
        score --model MODEL --data all.jsonl
    torchrun --nproc_per_node 8 -m uds_adapters.lab \
        score --model MODEL --data all.jsonl
    """
    from ..data.reader import Reader
    from . import choose as choosing
    from . import scorer as lab
    from . import target

    scoring = lab.Scoring(
        policy=policy,
        seed=seed,
        loss=loss,
        adapter=adapter,
        bf16=bf16,
        batch_tokens=batch_tokens,
        window=window,
        depth=depth,
    )
    chosen_by = scoring.make_policy(**target.options(source, policy))
    storage.check_outputs(source.data, output, subset, overwrite=overwrite)
    every = Reader(source.data).windows(size=window, limit=source.limit)
    total = every[-1].record + every[-1].records
    choosing.check(chosen_by, choosing.number_of(keep, total), total)
    with telling(machine=json) as tell, lab.process() as process, _locked(process, output, subset):
        if process.rank == 0:  # another command may have written them since
            storage.check_outputs(source.data, output, subset, overwrite=overwrite)
            hint_at_allocator()
        parts, seconds = _score_all(
            source, scoring, process, every, output=output, overwrite=overwrite, threads=threads
        )
        if process.rank > 0:
            return
        try:
            told_of = _choose(source, chosen_by, parts, every, keep=keep, rounds=rounds, output=output, subset=subset)
        except KeyboardInterrupt:
            msg = f"All windows are saved in {parts.folder}; the same command resumes from there."
            raise Interrupted(msg) from None
        parts.remove()
        tell({**told_of, "seconds": seconds})


@contextmanager
def _locked(process: "Process", *paths: Path | None) -> Iterator[None]:
    """Lock the files that the first process writes, windows included."""
    with ExitStack() as stack:
        for path in paths if process.rank == 0 else ():
            if path is not None:
                stack.enter_context(locked_file(path))
        yield


def _choose(
    source: Source,
    policy: Any,
    parts: Any,
    every: "Sequence[Window]",
    *,
    keep: str,
    rounds: int,
    output: Path,
    subset: Path | None,
) -> dict[str, Any]:
    """Select the best records of all windows and write both files; return a summary."""
    from ..free_memory import map_large_blocks
    from . import choose as choosing

    pool = parts.pool(len(every))
    if not pool.features:
        parts.remove()
        raise LabError(pool.summary.nothing("record"))
    number = choosing.number_of(keep, int(pool.scored.sum()))
    with rated("choosing", total=min(rounds, number), unit="rounds") as progress:
        map_large_blocks()
        choice = choosing.choose(policy, pool.features, best=number, rounds=rounds, in_place=True, progress=progress)
    about = {**parts.about, "keep": keep, "rounds": rounds}
    return _write(output, subset, pool, choice, source=source, about=about, every=every)


def _score_all(
    source: Source,
    scoring: "Scoring",
    process: "Process",
    every: "Sequence[Window]",
    *,
    output: Path,
    overwrite: bool,
    threads: int | None,
) -> tuple[Any, float]:
    """Score all windows to disk; return them and the seconds."""
    import time

    from ..system import threads as limited
    from . import scorer as lab
    from .window_store import WindowStore

    folder = output.with_name(output.name + ".parts")
    parts = WindowStore(folder, lab.about(source, scoring))
    if not overwrite:
        parts.claim(write=False)
    scorer = lab.scorer(source, scoring, process=process, parts=parts, every=every, overwrite=overwrite)
    process.wait()
    if process.rank == 0:
        if overwrite:
            parts.remove()
        parts.claim(write=True)
    process.wait()
    began = time.perf_counter()
    try:
        if scorer is not None:
            with limited(threads), _bar(process, every, parts) as progress:
                lab.score(scorer, process=process, parts=parts, every=every, progress=progress)
        process.wait()
    except KeyboardInterrupt:
        done = sum(map(parts.has, range(len(every))))
        msg = f"{done} of {len(every)} windows are saved in {folder}; the same command resumes from there."
        parts.remove_if_empty()
        raise Interrupted(msg if done else "No window was finished yet.") from None
    except BaseException:
        parts.remove_if_empty()
        raise
    return parts, time.perf_counter() - began


@contextmanager
def _bar(process: "Process", every: "Sequence[Window]", parts: Any) -> Iterator[Callable[[int], None] | None]:
    """Show a bar of the records of the first process; the others do as many."""
    if process.rank > 0:
        yield None
        return
    own = range(process.rank, len(every), process.size)
    total, done = (sum(every[n].records for n in some) for some in (own, filter(parts.has, own)))
    share = "" if process.size == 1 else f", share of process 1 of {process.size}"
    with rated(f"scoring{share}", total=total, unit="records", done=done) as progress:
        count = done

        def more(records: int) -> None:
            nonlocal count
            count += records
            progress(count)

        yield more


def _write(
    output: Path,
    subset: Path | None,
    pool: Any,
    choice: Any,
    *,
    source: Source,
    about: dict[str, Any],
    every: "Sequence[Window]",
) -> dict[str, Any]:
    """Write both files; return a summary."""
    from . import output as scored

    rows = scored.table(pool, choice, about=about)
    chosen = rows["chosen"].to_numpy()
    if subset is not None:
        scored.save_subset(subset, source.data, every, chosen)
    scored.save(output, rows)
    summary = pool.summary
    reasons = f", {summary.reasons()}" if summary.total_left_out else ""
    words = f"{pool.scored.sum()} of {len(chosen)} records scored{reasons}; {chosen.sum()} chosen."
    console.print(*[words, *summary.notes()], sep="\n", highlight=False, markup=False)
    console.print(f"Scores: {output}" + (f"\nChosen records: {subset}" if subset else ""), soft_wrap=True, markup=False)
    return {
        "records": len(chosen),
        "scored": int(pool.scored.sum()),
        "left_out": summary.total_left_out,
        "left_out_by": dict(summary.left_out),
        "chosen": int(chosen.sum()),
        "columns": rows.column_names,
        "output": str(output),
        "subset": None if subset is None else str(subset),
    }
