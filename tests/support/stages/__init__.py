"""Runs the gates and every kind of test in stages; `plan.py` has the table of stages, `__main__.py` the command."""
