"""Bindings: components that connect an app with a system outside, which contracts declare."""

import re
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, eq=False)
class OutputBinding:
    """A system that an app calls by the component of this name.

    `metadata` are the keys that each call gives, all of them, beside the component's own. `exclusive`: calls run one
    at a time. Both matter for `bindings.smtp`, which keeps the metadata of a call for the next one.
    """

    name: str
    summary: str
    operations: tuple[str, ...] = ("create",)
    metadata: tuple[str, ...] = ()
    seconds: float = 10.0
    """The time limit of a call."""
    exclusive: bool = False

    def __post_init__(self) -> None:
        _require_name(self.name)


@dataclass(frozen=True, slots=True, eq=False)
class InputBinding:
    """A system whose messages the component of this name delivers, to a handler.

    `id_key` is the metadata key with a message's id, if the component has one: by it a message is handled once.
    """

    name: str
    summary: str
    id_key: str | None = None

    def __post_init__(self) -> None:
        _require_name(self.name)


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a binding's name: small letters, digits and hyphens")


AnyBinding = OutputBinding | InputBinding
