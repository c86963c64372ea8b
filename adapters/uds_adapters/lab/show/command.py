"""`uds show`: some records as the model will read them, and what is trained on."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from .. import storage
from ..console import options
from ..console.options import Json, grouped, option, output
from ..console.terminal import console, telling
from ..data.jsonl import limited
from ..data.source import Source
from ..errors import LabError

if TYPE_CHECKING:
    from ..data.records import Record

__all__ = ["show"]

_RECORDS, _BYTES = 10_000, 8_000_000  # that are read without --limit: seconds of work


def _shown(text: str, /, *names: str, **more: Any) -> Any:
    return option(text, *names, panel="Records", **more)


@grouped(
    source=options.without(options.source, "eval_data", "target", "holdout", "limit", "eval_limit", "choices_field")
)
def show(
    *,
    source: Source,
    records: Annotated[int, _shown("Number of records to show.")] = 4,
    record: Annotated[
        list[str], _shown("Show this record, by its line or its field id; several times.", "--record")
    ] = [],  # noqa: B006 - typer copies it
    limit: Annotated[
        int | None, _shown("Read only the first N records.", show_default=f"{_RECORDS:,}, or {_BYTES / 1e6:.0f} MB")
    ] = None,
    html: Annotated[Path | None, output("Write the preview to this page too.")] = None,
    overwrite: Annotated[bool, output("Replace an existing page.", "--overwrite")] = False,
    json: Json = False,
) -> None:
    """Show records as the model will read them, which of their tokens carry loss, and what is left out and why.

    Only the tokenizer is loaded. Long records are shortened; those named by --record are shown whole. Near-duplicates
    are found as `uds dedup` finds them.

    Examples
    --------
    uds show --model MODEL --data alpaca.json
    uds show --model MODEL --data alpaca.json --record 17
    """
    from ..models import quiet
    from ..preview.reading import beginning, preview_of
    from ..preview.terminal import show as shown
    from ..training.task import encoder_of

    if records < 0:
        msg = f"`records` must be at least 0, got {records}"
        raise LabError(msg)
    if html is not None and html.exists() and not overwrite:
        msg = f"`html` {html} is already there: name another file, or replace it with `--overwrite`"
        raise LabError(msg)
    with telling(machine=json) as tell:
        most = _RECORDS if limit is None else limited(limit, limit, source.data)
        every, more = beginning(source, records=most, size=_BYTES if limit is None else None)
        asked = [_named(name, every, more=more) for name in record]
        with quiet():
            encoder = encoder_of(source)
        made = preview_of(every, encoder=encoder, number=records, asked=asked, more=more)
        shown(made, console, whole=bool(asked))
        if html is not None:
            from ..report.page import preview_page

            storage.write(html, preview_page(made, title=f"Data: {source.data.name}"))
            console.print(f"Page: {html}", soft_wrap=True, markup=False)
        tell(made.as_json())


def _named(name: str, every: list["Record"], /, *, more: bool) -> "Record":
    """Return the record with that line, place or id.

    Raises
    ------
    LabError
        If none has it.
    """
    for of in (lambda record: str(record.line), lambda record: record.where, lambda record: str(record.raw.get("id"))):
        for one in every:
            if of(one) == name or (":" in name and of(one).endswith(f"/{name}")):
                return one
    last = every[-1]
    hint = "; only these were read, `--limit` reads more" if more else ""
    msg = (
        f"`record` {name!r} is neither a line nor the field 'id' of a record: the {len(every):,} records begin at line "
        f"{every[0].line} and end at {last.line}{hint}"
    )
    raise LabError(msg)
