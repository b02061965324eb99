"""The local stack: servers, sidecars and apps as one supervised set of processes."""

from services.cli.stack.errors import StackError
from services.cli.stack.stack import Stack

__all__ = ["Stack", "StackError"]
