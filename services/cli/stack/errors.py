"""What can go wrong with the local stack; a message tells the user what to do."""


class StackError(Exception):
    """The stack cannot do what was asked; the message names the cause and the way out."""
