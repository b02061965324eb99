"""What follows from the contracts: written by `python -m services.codegen`, compared by `--check`."""
