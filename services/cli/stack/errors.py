"""The error of the local stack."""


class StackError(Exception):
    """The local stack cannot start or run; the message names the cause and what to do next."""
