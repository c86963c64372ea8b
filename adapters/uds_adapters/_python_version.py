"""Refusal of Python versions that the Hugging Face adapters do not support, when they are imported."""

import sys

__all__: list[str] = []

if sys.version_info < (3, 11):
    _now = f"{sys.version_info[0]}.{sys.version_info[1]}"
    msg = (
        f"the Hugging Face adapters and the uds command need Python 3.11 or newer, this is Python {_now}: make an "
        "environment with a newer Python and install uds-core there (uds_core and uds_adapters.torch also run on 3.10)"
    )
    raise ImportError(msg)
