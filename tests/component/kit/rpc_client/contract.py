"""The contract of the called app, under the app-id `llm`, which the local stack knows."""

from typing import Final

from services.contracts.events import Event
from services.kit.contract import Empty, Int64, Message, RpcService, Timestamp
from services.kit.errors import ErrorCode

READ: Final = "probe:read"
CALLER: Final = "workflows"
"""App-id of the calling app."""


class Identity(Message):
    """For whom a method was called."""

    user_id: str
    email: str
    scopes: list[str]
    key_id: str | None = None
    app: str | None = None
    counted: int = 0


class Named(Message):
    name: str


class FailRequest(Message):
    code: str


class Denials(Message):
    """What the denial audit was told, as text."""

    seen: list[str]


class WatchRequest(Message):
    """`rotateSeconds`: when the app asks to reconnect."""

    stream_id: str
    after: Int64 = 0
    rotate_seconds: float = 60


class Streams(Message):
    """Open streams, and those that were ever opened."""

    open: int
    opened: int


PROBE: Final = RpcService("yocaso.llm.v1.ProbeService", "Methods of every kind.")
WHO_AM_I: Final = PROBE.unary(
    "WhoAmI", Empty, Identity, "Show the caller", idempotent=True, scope=READ
)
ADMIN: Final = PROBE.unary("Admin", Empty, Empty, "Need another scope", scope="probe:admin")
CLOSED: Final = PROBE.unary("Closed", Empty, Empty, "Be called by the edge only", scope=READ)
FAIL: Final = PROBE.unary(
    "Fail", FailRequest, Empty, "Fail", raises=(ErrorCode.QUOTA_EXCEEDED,), scope=READ
)
WAIT: Final = PROBE.unary(
    "Wait", Named, Named, "Wait for a gate", timeout_seconds=60, waits=True, internal=True
)
OPEN_GATE: Final = PROBE.unary("OpenGate", Named, Empty, "Open a gate", internal=True)
COUNT: Final = PROBE.unary("Count", Named, Identity, "Count calls", idempotent=True, internal=True)
LIST_DENIALS: Final = PROBE.unary("ListDenials", Empty, Denials, "List denials", internal=True)
LIST_STREAMS: Final = PROBE.unary("ListStreams", Empty, Streams, "Count streams", internal=True)
WATCH: Final = PROBE.stream("Watch", WatchRequest, Event, "Follow a stream", scope=READ)
BREAK: Final = PROBE.stream("Break", WatchRequest, Event, "Fail after an event", scope=READ)


class NewerIdentity(Identity):
    """`Identity` as a later release would extend it."""

    since: Timestamp
    tags: list[str]
