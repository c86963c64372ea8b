"""`uds dedup`: how much of a data set is near-duplicates, and the data set without them."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from .. import storage
from ..console import options
from ..console.options import Json, option
from ..console.terminal import console, rated, telling
from ..data.records import Fields
from ..errors import LabError

if TYPE_CHECKING:
    from .search import Duplicates
    from .sketches import Sketches

__all__ = ["dedup"]

_WINDOW = 2048  # records that are read at a time


def _data(text: str, /, *names: str, **more: Any) -> Any:
    return option(text, *names, panel="Data", **more)


def dedup(
    *,
    data: Annotated[Path, _data("JSONL; a record holds prompt and completion, or messages, or text.")],
    limit: Annotated[int | None, _data("Use only the first N records.")] = None,
    prompt_field: Annotated[str, _data("Field of the prompt.")] = "prompt",
    completion_field: Annotated[str, _data("Field of the completion.")] = "completion",
    messages_field: Annotated[str, _data("Field of the messages.")] = "messages",
    text_field: Annotated[str, _data("Field of the text.")] = "text",
    threshold: Annotated[
        float, option("Fraction of n-grams in common from which records are near-duplicates.", panel="Search")
    ] = 0.5,
    subset: Annotated[
        Path | None, options.output("Write the records without near-duplicates here: their own lines, in their order.")
    ] = None,
    output: Annotated[Path, options.output("The Parquet file.")] = Path("duplicates.parquet"),
    overwrite: Annotated[bool, options.output("Replace existing files.", "--overwrite")] = False,
    json: Json = False,
) -> None:
    r"""Find near-duplicates in a data set, and leave them out.

    No model is needed: records are compared by n-grams of their words, and n-grams of a template that many records
    share do not count. The first of several near-duplicates is kept. If few are found, a policy against near-duplicates
    (fresh) has nothing to gain; if many are, training on the rest costs less.

    Examples
    --------
    uds dedup --data all.jsonl --subset distinct.jsonl
    """
    import time

    from ..data.jsonl import windows
    from .search import search
    from .sketches import read

    storage.check_records(data)
    if not 0.0 < threshold <= 1.0:
        msg = f"`threshold` must be a fraction in (0, 1], got {threshold}: 0.5 is half of the n-grams in common"
        raise LabError(msg)
    storage.check_outputs(data, output, subset, overwrite=overwrite)
    names = Fields(prompt=prompt_field, completion=completion_field, messages=messages_field, text=text_field)
    every = windows(data, size=_WINDOW, limit=limit)
    total, began = every[-1].record + every[-1].records, time.perf_counter()
    with telling(machine=json) as tell:
        with rated("reading", total=total, unit="records") as progress:
            sketches = read(data, every, fields=names, progress=progress)
        found = search(sketches, threshold=threshold)
        _write(data, every, sketches, found, threshold=threshold, output=output, subset=subset)
        tell({**_report(found), "output": str(output), "subset": None if subset is None else str(subset)}
             | {"seconds": time.perf_counter() - began})  # fmt: skip


def _report(found: "Duplicates") -> dict[str, Any]:
    """Print how many records are near-duplicates; return a summary."""
    total, near = len(found.original), int((found.original >= 0).sum())
    equal = int(found.equal.sum())
    console.print(
        f"{near} of {total} records ({near / total:.1%}) are near-duplicates of an earlier one, {equal} of them with "
        f"the same words; {total - near} are left."
    )
    if near < 0.02 * total:
        console.print("A policy against near-duplicates, such as fresh, has little to gain here.")
    return {"records": total, "near_duplicates": near, "equal": equal, "kept": total - near, "rate": near / total}


def _write(
    data: Path,
    every: Any,
    sketches: "Sketches",
    found: "Duplicates",
    *,
    threshold: float,
    output: Path,
    subset: Path | None,
) -> None:
    """Write a row for each record, and the lines of those that are kept, byte for byte."""
    import json

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..data import jsonl

    repeats = found.original >= 0
    rows = pa.table(
        {
            "record": pa.array(np.arange(len(repeats))),
            "line": pa.array(sketches.line),
            "words": pa.array(sketches.words),
            "near_duplicate_of": pa.array(found.original, mask=~repeats),
            "similarity": pa.array(found.similarity, mask=~repeats),
            "chosen": pa.array(~repeats),
        }
    ).replace_schema_metadata({"uds": json.dumps({"data": str(data), "threshold": threshold})})
    if subset is not None:
        with storage.atomic(subset) as stream:
            for window in every:
                for line in jsonl.read(data, window):
                    if not repeats[line.record]:
                        stream.write(line.content + (line.end or b"\n"))
    with storage.atomic(output) as stream:
        pq.write_table(rows, stream)
    console.print(f"Near-duplicates: {output}" + (f"\nOther records: {subset}" if subset else ""), soft_wrap=True)
