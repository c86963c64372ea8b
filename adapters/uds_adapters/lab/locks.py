"""Locks of output folders and files: one command at a time writes there.

The operating system holds the lock (`flock`, on Windows a locked region) and releases it when the process ends, however
it ends: what a killed command leaves behind blocks nobody. On network file systems it holds between machines as far as
their server keeps such locks (NFS with its lock service, Lustre mounted with `flock`; not NFS mounted with `nolock` or
`local_lock`, where it holds between the processes of one machine). Where a file system has no locks at all, the process
and machine that the owner wrote down decide: a process of this machine is looked up, one of another counts as running.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from . import storage
from .errors import LabError

__all__ = ["locked_file", "locked_folder", "one_at_a_time"]

_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
_ATTEMPTS = 5  # the last owner may delete the file between its opening and locking


@contextlib.contextmanager
def locked_folder(folder: Path, /) -> Iterator[None]:
    """Lock an output folder inside the block; create it, and delete it afterwards if it is empty then.

    Raises
    ------
    LabError
        If another command is running in the folder, named by process, host and command line, or if the folder cannot be
        created.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        storage.folder(folder)
        with _locked(folder / storage.LOCK, folder / storage.OWNER, subject=folder):
            yield
    finally:
        with contextlib.suppress(OSError):  # the first that is not empty ends it
            for path in new:
                path.rmdir()


@contextlib.contextmanager
def locked_file(path: Path, /) -> Iterator[None]:
    """Lock an output file inside the block, by files with `.lock` and `.lock.json` after its name.

    Raises
    ------
    LabError
        If another command is writing the file.
    """
    lock = path.with_name(f"{path.name}.lock")
    with _locked(lock, lock.with_name(f"{lock.name}.json"), subject=path):
        yield


@contextlib.contextmanager
def one_at_a_time(lock: Path, /) -> Iterator[None]:
    """Wait until no other process is inside the block with the same file; where there are no locks, do not wait."""
    held = filelock.FileLock(lock)
    try:
        held.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        yield
        return
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def _locked(lock: Path, owner: Path, *, subject: Path) -> Iterator[None]:
    try:
        held = _acquired(lock, owner, subject)
    except OSError as error:
        raise storage.user_error(error, lock) from None
    try:
        storage.write(owner, json.dumps(_self()))
        yield
    finally:
        owner.unlink(missing_ok=True)
        if os.name == "posix":  # elsewhere an open file cannot be deleted, and stays
            lock.unlink(missing_ok=True)
        held.release()


def _acquired(lock: Path, owner: Path, subject: Path) -> filelock.BaseFileLock:
    for _ in range(_ATTEMPTS):
        held = filelock.FileLock(lock)
        try:
            held.acquire(blocking=False)
        except filelock.Timeout:
            if lock.exists():
                raise _in_use(subject, owner) from None
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if _may_run(_read(owner)):
                raise _in_use(subject, owner) from None
            return held
        if lock.exists():
            return held
        held.release()
    raise _in_use(subject, owner)


def _self() -> dict[str, Any]:
    command = shlex.join(["uds", *sys.argv[1:]])
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "began": began}


def _read(owner: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(owner.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # not written yet, or deleted just now
    return found if isinstance(found, dict) else None


def _may_run(owner: dict[str, Any] | None) -> bool:
    if owner is None:
        return False
    if owner.get("host") != socket.gethostname() or os.name != "posix":
        return True
    try:
        os.kill(int(owner["pid"]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return int(owner["pid"]) != os.getpid()


def _in_use(subject: Path, owner: Path) -> LabError:
    found = _read(owner) or {}
    who = f"process {found.get('pid')} on {found.get('host')}, since {found.get('began')}: {found.get('command')}"
    return LabError(
        f"another command is writing to {subject} ({who if found else 'its process is not known'}): wait for its end, "
        "or name another place with `--output`"
    )
