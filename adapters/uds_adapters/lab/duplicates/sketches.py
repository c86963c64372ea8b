"""Sketches of the words of records."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import uds_core as uds

from ..data.records import Record

__all__ = ["DIM", "Sketches", "joined", "sketched", "words"]

DIM = 128
_MOST = 4096  # words of a record that are compared: its beginning
_BLOCK = 64  # records of one call, of nearly equal length
_WORD = re.compile(r"\w+|[^\w\s]")
# scripts without spaces between words: Thai and Lao, Myanmar, Khmer, and those of East Asia
_LETTERS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_PARTS = re.compile(f"[{_LETTERS}]|[^{_LETTERS}]+")


class Sketches(NamedTuple):
    """What is compared of records."""

    line: np.ndarray  # (n,) int64, from 1
    words: np.ndarray  # (n,) int32: number of words
    exact: np.ndarray  # (n,) uint64: hash of the words
    numbers: np.ndarray  # (n, DIM) int32: sketches of their n-grams


def sketched(records: Sequence[Record], /) -> Sketches:
    """Return the sketches of records, in their order. Holds 4 * DIM bytes for each."""
    every = [words(_text(record)) for record in records]
    hashed = [[zlib.crc32(word.encode("utf-8", "surrogatepass")) >> 1 for word in own[:_MOST]] for own in every]
    return Sketches(
        np.array([record.line for record in records], np.int64),
        np.array([len(own) for own in every], np.int32),
        np.array([_digest(own) for own in every], np.uint64),
        _numbers(hashed),
    )


def joined(parts: Sequence[Sketches], /) -> Sketches:
    """Return the sketches of all parts, one after the other."""
    return Sketches(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def words(text: str, /) -> list[str]:
    """Return words and punctuation of a text, in lower case; scripts without spaces letter by letter."""
    found: list[str] = _WORD.findall(text.lower())
    if text.isascii():
        return found
    return [part for word in found for part in ([word] if word.isascii() else _PARTS.findall(word))]


def _text(record: Record) -> str:
    """Return all that a record says: prompt and completion, or the turns of its conversation."""
    if record.messages:
        return "\n".join(str(turn.get("content") or "") for turn in record.messages)
    return f"{record.prompt or ''}\n{record.completion}"


def _digest(own: Sequence[str]) -> int:
    whole = hashlib.blake2b(" ".join(own).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(whole.digest(), "little")


def _numbers(texts: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the sketches (n, DIM) of lists of hashed words; records of nearly equal length are sketched together."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    sketches = np.zeros((len(texts), DIM), np.int32)
    for start in range(0, len(order), _BLOCK):
        here = order[start : start + _BLOCK]
        longest = len(texts[here[-1]])
        ids, mask = np.zeros((len(here), longest), np.int32), np.zeros((len(here), longest), bool)
        for row, i in enumerate(here):
            ids[row, : len(texts[i])], mask[row, : len(texts[i])] = texts[i], True
        sketches[here] = uds.ngram_sketch(ids, mask=mask, dim=DIM)
    return sketches
