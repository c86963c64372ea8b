"""`python -m uds_adapters.lab`: the `uds` command, for launchers that start modules."""

from . import main

main()
