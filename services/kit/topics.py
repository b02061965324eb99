"""Topics of pub/sub: what contracts declare, publishers publish and subscribers receive."""

import re
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from services.kit.contract import Message

E = TypeVar("E", bound=Message)

_NAME: Final = re.compile(r"[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*){2}\.v[1-9][0-9]*")


@dataclass(frozen=True, slots=True, eq=False)
class Topic(Generic[E]):
    """Events of one kind, named `<app>.<noun>.<past verb>.v<version>`; the name is also the CloudEvents type.

    `ordered`: events with the same key are handled in the order in which they were published.
    """

    name: str
    event: type[E]
    summary: str
    ordered: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise TypeError(f"{self.name} is not <app>.<noun>.<past verb>.v<version>")

    @property
    def app_id(self) -> str:
        """The app that publishes it."""
        return self.name.split(".")[0]


AnyTopic = Topic[Any]
