"""What a stack tells the command that runs it: lines of text, states of processes, progress of builds."""

from enum import StrEnum
from typing import Protocol

from services.cli.stack.builds import BuildStatus


class State(StrEnum):
    """The state of one process."""

    BUILDING = "waiting for its program"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    ENDED = "ended"
    FAILED = "failed"


class Listener(Protocol):
    """Receives the events of a stack; methods are called by several threads."""

    def report(self, text: str) -> None:
        """A line for the operator."""
        ...

    def process(self, name: str, state: State, seconds: float = 0.0, note: str = "") -> None:
        """A process changed its state; `seconds` it was starting, once READY."""
        ...

    def building(self, status: BuildStatus | None) -> None:
        """Programs are being built; None once all are."""
        ...


class Silent:
    """A listener that shows nothing."""

    def report(self, text: str) -> None:
        pass

    def process(self, name: str, state: State, seconds: float = 0.0, note: str = "") -> None:
        pass

    def building(self, status: BuildStatus | None) -> None:
        pass
