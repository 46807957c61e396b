"""`python -m services.cli`: the `vilix` command."""

from services.cli.main import main

main()
