"""Files and folders that the user names: there, or an error that says what was expected."""

from __future__ import annotations

from pathlib import Path

from .errors import LabError

__all__ = ["check_model", "check_records"]


def check_model(folder: Path, /) -> None:
    """Raise where `folder` cannot hold a model."""
    if not folder.is_dir():
        msg = (
            f"no folder {folder}: `--model` takes a local folder with a model and its tokenizer, and nothing is "
            "downloaded here. Fetch one first: `hf download NAME --local-dir FOLDER`"
        )
        raise LabError(msg)
    if not (folder / "config.json").is_file():
        msg = f"{folder} holds no config.json: expected a model folder as `save_pretrained` writes it"
        raise LabError(msg)


def check_records(file: Path, /) -> None:
    """Raise where `file` cannot hold records."""
    if not file.is_file():
        msg = f"no file {file}: expected a JSONL file, one record a line"
        raise LabError(msg)
