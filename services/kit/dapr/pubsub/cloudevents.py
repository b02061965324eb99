"""Events in the JSON format of CloudEvents 1.0, with W3C trace context and the extension `sequence`."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, Literal

import pydantic
from pydantic import Field, StringConstraints

from services.kit.contract import rfc3339
from services.kit.errors import ErrorCode, RpcError
from services.kit.telemetry.tracing import current_traceparent
from services.kit.topics import E, Topic

CONTENT_TYPE: Final = "application/cloudevents+json"
SPEC_VERSION: Final = "1.0"
KEY: Final = "partitionkey"
SEQUENCE: Final = "sequence"
PREVIOUS: Final = "previoussequence"
"""The sequence of the key's previous event, "0" for its first; with `sequence`, on ordered topics only."""


@dataclass(frozen=True, slots=True)
class Event(Generic[E]):
    """A received event. `id` is equal for every delivery of it."""

    id: str
    time: datetime
    key: str | None
    data: E


@dataclass(frozen=True, slots=True)
class Envelope:
    """A received CloudEvent whose data is not validated yet; `sequence` is 0 on unordered topics."""

    id: str
    time: datetime
    key: str | None
    sequence: int
    previous: int
    traceparent: str | None
    body: dict[str, Any]

    @property
    def has_place(self) -> bool:
        """Whether it has a place in the order of its key."""
        return self.sequence > 0 and self.key is not None

    def open(self, topic: Topic[E]) -> Event[E]:
        """The typed event. Fields that a newer publisher added are ignored.

        Raises:
            RpcError: INVALID_ARGUMENT if the data does not have the topic's shape.
        """
        try:
            data = topic.event.model_validate(self.body.get("data"), extra="ignore")
        except pydantic.ValidationError as error:
            raise RpcError(
                ErrorCode.INVALID_ARGUMENT, f"The event is not a valid {topic.name}."
            ) from error
        return Event(self.id, self.time, self.key, data)


def encode(topic: Topic[E], event_id: str, data: E, key: str | None) -> str:
    """A new event as JSON."""
    trace = current_traceparent()
    body: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "id": event_id,
        "source": f"/yocaso/{topic.app_id}",
        "type": topic.name,
        "time": rfc3339(datetime.now(UTC)),
        "datacontenttype": "application/json",
        "data": data.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    if key is not None:
        body[KEY] = key
    if trace:  # `traceid` too: without it, daprd would replace both
        body |= {"traceparent": trace, "traceid": trace}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def with_sequence(body: str, sequence: int, previous: int) -> str:
    """The event with its place among the events of its key."""
    return json.dumps(
        {**json.loads(body), SEQUENCE: str(sequence), PREVIOUS: str(previous)},
        ensure_ascii=False,
        separators=(",", ":"),
    )


class _Attributes(pydantic.BaseModel):
    """The context attributes that are read; others are ignored."""

    specversion: Literal["1.0"]
    id: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    time: pydantic.AwareDatetime
    partitionkey: str | None = None
    sequence: Annotated[int, Field(ge=0)] = 0
    previoussequence: Annotated[int, Field(ge=0)] = 0
    traceparent: str | None = None


def decode(body: bytes | str) -> Envelope:
    """Read a delivered CloudEvent.

    Raises:
        RpcError: INVALID_ARGUMENT for anything else.
    """
    try:
        read = _Attributes.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise RpcError(ErrorCode.INVALID_ARGUMENT, "The message is not a CloudEvent.") from error
    return Envelope(
        id=read.id,
        time=read.time,
        key=read.partitionkey,
        sequence=read.sequence,
        previous=read.previoussequence,
        traceparent=read.traceparent,
        body=json.loads(body),
    )
