"""Near-duplicates among the training records."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Sequence

__all__ = ["duplicates"]

_WORDS = 3  # in a shingle
_LOWEST = 4  # shingles by which near copies are looked up
_SIMILAR = 0.8  # fraction of shingles in common
_COMPARED = 50  # records that share a shingle: phrases of a template are in all of them


def duplicates(texts: Sequence[str], /) -> list[int | None]:
    """For each text, the index of the first one that it repeats, or None.

    Parameters
    ----------
    texts
        Compared by their words, without case and punctuation: as sets of three words in a row, of which four in five
        must be common.

    Notes
    -----
    Near copies are found by the four lowest hashes of their shingles, as MinHash does: those with 0.8 in common are
    missed once in hundreds. Seconds for ten thousand records; no text is compared with all others.
    """
    known: dict[int, list[int]] = defaultdict(list)
    shingled: list[frozenset[int]] = []
    found: list[int | None] = []
    for index, text in enumerate(texts):
        mine = _shingles(text)
        shingled.append(mine)
        lowest = sorted(mine)[:_LOWEST]
        near = sorted({other for shingle in lowest for other in known[shingle][-_COMPARED:]})
        original = next((other for other in near if _similar(mine, shingled[other])), None)
        found.append(original)
        for shingle in lowest if original is None else ():
            known[shingle].append(index)
    return found


def _shingles(text: str) -> frozenset[int]:
    words = re.findall(r"\w+", text.lower())
    runs = (" ".join(words[i : i + _WORDS]) for i in range(max(1, len(words) - _WORDS + 1)))
    return frozenset(zlib.crc32(run.encode()) for run in runs)  # not hash(), which differs between processes


def _similar(a: frozenset[int], b: frozenset[int]) -> bool:
    return len(a & b) >= _SIMILAR * len(a | b)
