"""The command line, its reports of a run, and `ask`. Imported by `__main__` alone."""
