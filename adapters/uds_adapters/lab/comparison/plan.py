"""Configuration shared by all runs in a folder, as JSON."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.fields import Fields
from ..data.source import Source
from ..training.settings import Settings

__all__ = ["Plan", "slug"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Configuration shared by all runs in a folder; policies and further seeds may be added.

    Parameters
    ----------
    source, settings
        Where the task comes from, and how it is trained.
    seed
        The first: it decides which records are held out.
    """

    source: Source
    settings: Settings
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Return the plan, ready for JSON, with fingerprints of the files that it names."""
        return {
            "source": json.loads(json.dumps(asdict(self.source), default=str)),
            "settings": json.loads(json.dumps(asdict(self.settings))),
            "seed": self.seed,
            "fingerprints": self.source.fingerprints(),
        }

    @classmethod
    def of_json(cls, values: Mapping[str, Any], /) -> Plan:
        """Return the plan that `as_json` described."""
        source, settings = dict(values["source"]), dict(values["settings"])
        for name in ("model", "data", "eval_data", "reference_model", "target"):
            source[name] = None if source[name] is None else Path(source[name])
        source["fields"] = Fields(**source["fields"])
        settings["metrics"] = tuple(settings["metrics"])
        return cls(source=Source(**source), settings=Settings(**settings), seed=values["seed"])


def slug(policy: str, seed: int, /) -> str:
    """Return a file name for a run, different for different policies."""
    safe = re.sub(r"[^\w.=-]+", "_", policy)
    if safe != policy.replace(":", "_", 1).replace(",", "_") or len(safe) > 100:
        safe = f"{safe[:80]}-{zlib.crc32(policy.encode()):08x}"
    return f"{safe}-seed{seed}"
