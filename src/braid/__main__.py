"""`python -m braid`."""

from braid.cli.main import main

main()
