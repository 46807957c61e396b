"""The `vilix` command: one module per subcommand."""
