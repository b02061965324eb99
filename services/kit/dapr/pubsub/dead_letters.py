"""Dead letters of an app: the routes of its `DeadLetterService`."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from sqlalchemy import text

from services.kit.access.authorization import CallingApp
from services.kit.contract import Empty
from services.kit.dapr.deliveries import error_of
from services.kit.dapr.pubsub.cloudevents import decode
from services.kit.dapr.pubsub.inbox import run_handler
from services.kit.dapr.pubsub.subscriptions import Subscriptions
from services.kit.dead_letters import (
    DeadLetter,
    GetDeadLetterRequest,
    GetDeadLetterResponse,
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    RedriveDeadLetterRequest,
    dead_letters_of,
)
from services.kit.errors import ErrorCode, ErrorStatus, RpcError, not_found
from services.kit.failpoints import failpoint
from services.kit.http.cursors import decode_cursor, encode_cursor
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter
from services.kit.storage.db import Database

COLUMNS: Final = "number, id, topic, event_id, attempts, error, at"
LIST: Final = f"""
    SELECT {COLUMNS} FROM events.dead_letters
    WHERE app = $1 AND number > $2 AND ($3::text IS NULL OR topic = $3) ORDER BY number LIMIT $4
"""  # noqa: S608 - constants
GET: Final = f"SELECT {COLUMNS}, event FROM events.dead_letters WHERE app = $1 AND id = $2"  # noqa: S608
TAKE: Final = text(
    "DELETE FROM events.dead_letters WHERE app = :app AND id = :id RETURNING topic, event"
)
FAIL: Final = """
    UPDATE events.dead_letters SET attempts = attempts + 1, error = $3 WHERE app = $1 AND id = $2
"""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Lists, shows and redrives the dead letters of one app."""

    app_id: str
    database: Database
    subscriptions: Subscriptions

    async def page(self, request: ListDeadLettersRequest) -> ListDeadLettersResponse:
        """A page, oldest first."""
        scope = f"dead letters {request.topic}"
        after = decode_cursor(scope, request.cursor) if request.cursor else 0
        arguments = (self.app_id, after, request.topic, request.limit + 1)
        rows = await self.database.fetch(LIST, *arguments)
        page = rows[: request.limit]
        more = len(rows) > request.limit
        return ListDeadLettersResponse(
            dead_letters=[_dead_letter(row) for row in page],
            next_cursor=encode_cursor(scope, page[-1]["number"]) if more else None,
        )

    async def get(self, dead_letter_id: str) -> GetDeadLetterResponse:
        """A dead letter with its event. NOT_FOUND after a redrive or its retention."""
        row = await self.database.fetch_one(GET, self.app_id, dead_letter_id)
        if row is None:
            raise not_found("dead letter")
        return GetDeadLetterResponse(dead_letter=_dead_letter(row), event=row["event"])

    async def redrive(self, dead_letter_id: str, request: Request) -> None:
        """Handle the event in the transaction that removes its dead letter.

        Raises:
            RpcError: NOT_FOUND; FAILED_PRECONDITION if no handler takes it; or the handler's error, which is kept.
        """
        try:
            await self._handle(dead_letter_id, request)
        except Exception as error:
            problem = error_of(error)
            status = problem.to_status().model_dump_json(by_alias=True, exclude_none=True)
            await self.database.fetch(FAIL, self.app_id, dead_letter_id, status)
            raise problem from error

    async def _handle(self, dead_letter_id: str, request: Request) -> None:
        async with self.database.transaction() as transaction:
            taken = await transaction.execute(TAKE, {"app": self.app_id, "id": dead_letter_id})
            row = taken.first()
            if row is None:
                raise not_found("dead letter")
            subscription = self.subscriptions.by_topic.get(row.topic)
            if subscription is None:
                raise RpcError(ErrorCode.FAILED_PRECONDITION, f"No handler takes {row.topic}.")
            handler = await subscription.bind(request)
            event = decode(row.event).open(subscription.topic)
            await run_handler(handler, event, transaction)
            await failpoint("dead_letters.before_commit")


async def _request(request: Request) -> Request:
    return request


Letters = Annotated[DeadLetters, Depends(provided(DeadLetters))]
Http = Annotated[Request, Depends(_request)]


def dead_letter_routes(app_id: str) -> RpcRouter:
    """The routes of an app's `DeadLetterService`."""
    rpc = RpcRouter(dead_letters_of(app_id))

    @rpc.method
    async def list_dead_letters(
        request: ListDeadLettersRequest, _: CallingApp, letters: Letters
    ) -> ListDeadLettersResponse:
        return await letters.page(request)

    @rpc.method
    async def get_dead_letter(
        request: GetDeadLetterRequest, _: CallingApp, letters: Letters
    ) -> GetDeadLetterResponse:
        return await letters.get(request.dead_letter_id)

    @rpc.method
    async def redrive_dead_letter(
        request: RedriveDeadLetterRequest, _: CallingApp, letters: Letters, http: Http
    ) -> Empty:
        await letters.redrive(request.dead_letter_id, http)
        return Empty()

    del list_dead_letters, get_dead_letter, redrive_dead_letter
    return rpc


def _dead_letter(row: Any) -> DeadLetter:
    return DeadLetter(
        dead_letter_id=row["id"],
        topic=row["topic"],
        event_id=row["event_id"],
        attempts=row["attempts"],
        error=ErrorStatus.model_validate_json(row["error"]),
        at=row["at"],
    )
