"""The `uds` command: full training, chance and UDS on your own model and data, measured and told in words."""

import sys

__all__ = ["main"]

_EXTRA = ("typer", "rich", "plotly", "torch", "transformers", "accelerate", "peft", "trl", "optuna", "yaml", "pyarrow")


def main() -> None:
    """Run the command line; say what to install where it cannot run."""
    try:
        from .. import _python_version as _python_version
    except ImportError as error:
        sys.exit(f"Error: {error}")
    try:
        from .cli import main as run

        run()
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.exit(f"Error: `uds` needs {error.name}, which is not installed: pip install 'uds-core[cli]'")
