"""Page on the data of a run: records as the model reads them, and what is trained on."""

from __future__ import annotations

from pathlib import Path

from .. import storage
from ..data.encoding import Encoder
from ..data.source import Source
from ..preview.reading import beginning, preview_of
from ..report.page import preview_page

__all__ = ["PAGE", "write_data_page"]

PAGE = "data.html"
_RECORDS, _BYTES = 1000, 1_000_000  # that are read: a second of work


def write_data_page(source: Source, folder: Path, /, *, encoder: Encoder) -> Path:
    """Write the preview of the first records of a run's data into its folder, and return the path.

    Raises
    ------
    LabError
        Where it cannot be written.
    """
    records, more = beginning(source, records=min(_RECORDS, source.limit or _RECORDS), size=_BYTES)
    made = preview_of(records, encoder=encoder, more=more)
    storage.write(folder / PAGE, preview_page(made, title=f"Data: {source.data.name}"))
    return folder / PAGE
