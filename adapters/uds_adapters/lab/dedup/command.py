"""`uds dedup`: how much of a data set is near-duplicates, and the data set without them."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from .. import storage
from ..console import options
from ..console.options import Json, option
from ..console.terminal import console, rated, telling
from ..data.fields import FORMATS, Fields
from ..data.named import as_files
from ..errors import LabError

if TYPE_CHECKING:
    from ..data.reader import Reader
    from ..duplicates.search import Duplicates
    from ..duplicates.sketches import Sketches

__all__ = ["dedup"]

_WINDOW = 2048  # records that are read at a time


def _data(text: str, /, *names: str, **more: Any) -> Any:
    return option(text, *names, panel="Data", **more)


def dedup(
    *,
    data: Annotated[
        Path,
        _data("JSONL, JSON, CSV or Parquet; or a folder or a pattern of such files, or a folder that datasets saved."),
    ],
    limit: Annotated[int | None, _data("Use only the first N records.")] = None,
    prompt_field: Annotated[str, _data("Field of the prompt.")] = "prompt",
    completion_field: Annotated[str, _data("Field of the completion.")] = "completion",
    messages_field: Annotated[str, _data("Field of the messages.")] = "messages",
    text_field: Annotated[str, _data("Field of the text.")] = "text",
    data_format: Annotated[
        str, _data(f"Format of the records: {', '.join(FORMATS)}.", "--format", show_default="each record's own")
    ] = "auto",
    columns: Annotated[list[str], _data("name=field, such as context=passage; several times.")] = [],  # noqa: B006
    threshold: Annotated[
        float, option("Fraction of n-grams in common from which records are near-duplicates.", panel="Search")
    ] = 0.5,
    subset: Annotated[
        Path | None,
        options.output("Write the records without near-duplicates here, as JSONL; lines of JSONL stay as they are."),
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

    from ..data.reader import Reader
    from ..data.records import parse
    from ..duplicates.search import search
    from ..duplicates.sketches import joined, sketched

    data = as_files(data)
    if not 0.0 < threshold <= 1.0:
        msg = f"`threshold` must be a fraction in (0, 1], got {threshold}: 0.5 is half of the n-grams in common"
        raise LabError(msg)
    storage.check_outputs(data, output, subset, overwrite=overwrite)
    names = Fields(
        format=data_format, prompt=prompt_field, completion=completion_field, messages=messages_field, text=text_field
    ).mapped(columns)
    began, reader = time.perf_counter(), Reader(data)
    every = reader.windows(size=_WINDOW, limit=limit)
    parts = []
    with telling(machine=json) as tell:
        with rated("reading", total=every[-1].record + every[-1].records, unit="records") as progress:
            for window in every:
                parts.append(sketched([parse(line, path=data, fields=names) for line in reader.read(window)]))
                progress(window.record + window.records)
        sketches = joined(parts)
        found = search(sketches, threshold=threshold)
        _write(reader, every, sketches, found, threshold=threshold, output=output, subset=subset)
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
    reader: "Reader",
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
    ).replace_schema_metadata({"uds": json.dumps({"data": str(reader.path), "threshold": threshold})})
    if subset is not None:
        with storage.atomic(subset) as stream:
            for window in every:
                for line in reader.read(window):
                    if not repeats[line.record]:
                        stream.write(line.content + (line.end or b"\n"))
    with storage.atomic(output) as stream:
        pq.write_table(rows, stream)
    console.print(f"Near-duplicates: {output}" + (f"\nOther records: {subset}" if subset else ""), soft_wrap=True)
