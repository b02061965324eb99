"""Topics of `auth`."""

from typing import Final

from services.kit.contract import Int64, Message
from services.kit.topics import Topic


class RemovedAccess(Message):
    """Access that may have been removed: of `userId`, to `object` (`conversation:…`); an absent one means any."""

    user_id: str | None = None
    object: str | None = None


class AccessChanged(Message):
    """Access was removed; `position` is the change's place in auth's feed, which counts up without gaps."""

    position: Int64
    changes: list[RemovedAccess]


ACCESS_CHANGED: Final = Topic("auth.access.changed.v1", AccessChanged, "Access was removed.")
