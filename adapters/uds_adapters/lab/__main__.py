"""Entry point of the `uds` command, also as `python -m uds_adapters.lab` for launchers that start modules."""

import sys

__all__ = ["main"]

_EXTRA = (
    "typer", "rich", "plotly", "torch", "transformers", "accelerate", "peft", "trl", "optuna", "yaml", "pyarrow",
    "filelock",
)  # fmt: skip


def main() -> None:
    """Run the command line; say what to install if a package is missing."""
    try:
        from .. import _python_version  # noqa: F401 - refuses an old Python
    except ImportError as error:
        sys.exit(f"Error: {error}")
    try:
        from .cli import main as run

        run()
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.exit(f"Error: `uds` needs {error.name}, which is not installed: pip install 'uds-core[cli]'")


if __name__ == "__main__":
    main()
