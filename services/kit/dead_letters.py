"""Dead letters: the RPC service of every app that subscribes to topics, for operators."""

import functools
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from services.kit.contract import Empty, Message, RpcService, Timestamp
from services.kit.errors import ErrorCode, ErrorStatus

MAX_PAGE: Final = 100

DeadLetterId = Annotated[str, StringConstraints(pattern=r"^dlt_[0-9a-f]{32}$")]


class DeadLetter(Message):
    """An event that a subscription gave up: after `attempts` failures, or at once for an error that no retry mends."""

    dead_letter_id: DeadLetterId
    topic: str
    event_id: str
    attempts: int
    error: ErrorStatus
    at: Timestamp


class ListDeadLettersRequest(Message):
    """Lists the app's dead letters, oldest first."""

    topic: Annotated[str, StringConstraints(max_length=255)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 50
    cursor: Annotated[str, StringConstraints(max_length=512)] | None = None


class ListDeadLettersResponse(Message):
    """A page; `nextCursor` is absent on the last one."""

    dead_letters: list[DeadLetter]
    next_cursor: str | None = None


class GetDeadLetterRequest(Message):
    """Names a dead letter."""

    dead_letter_id: DeadLetterId = Field(examples=["dlt_" + "0" * 32])


class GetDeadLetterResponse(Message):
    """A dead letter with its event, a CloudEvent as JSON text."""

    dead_letter: DeadLetter
    event: str


class RedriveDeadLetterRequest(Message):
    """Names the dead letter to handle again."""

    dead_letter_id: DeadLetterId = Field(examples=["dlt_" + "0" * 32])


LIST: Final = "ListDeadLetters"
GET: Final = "GetDeadLetter"
REDRIVE: Final = "RedriveDeadLetter"


@functools.cache
def dead_letters_of(app_id: str) -> RpcService:
    """The service of an app, which operators call through the app's own sidecar."""
    service = RpcService(
        f"yocaso.{app_id}.v1.DeadLetterService", "Events that a subscription gave up."
    )
    service.unary(
        LIST, ListDeadLettersRequest, ListDeadLettersResponse, "List dead letters.", internal=True
    )
    service.unary(
        GET,
        GetDeadLetterRequest,
        GetDeadLetterResponse,
        "Read a dead letter and its event.",
        internal=True,
        raises=(ErrorCode.NOT_FOUND,),
    )
    service.unary(
        REDRIVE,
        RedriveDeadLetterRequest,
        Empty,
        "Handle a dead letter's event again; on success it is removed, else its error is replaced.",
        internal=True,
        raises=(ErrorCode.NOT_FOUND, ErrorCode.FAILED_PRECONDITION),
    )
    return service
