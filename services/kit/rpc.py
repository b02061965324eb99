"""Routes of an RPC service, bound to its contract: paths, parsing, errors, idempotency and streams."""

import functools
import inspect
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Final, cast

import pydantic
import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from services.kit.contract import Message, RpcMethod, RpcService
from services.kit.errors import ErrorCode, FieldViolation, RpcError, internal_error
from services.kit.event_stream import EventStream
from services.kit.idempotency import MAX_KEY_LENGTH, IdempotencyKey, IdempotencyRecords, StoredReply
from services.kit.identity import caller_of
from services.kit.sidecar import SidecarError, unavailable

Handler = Callable[..., Any]

STREAM_HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}
RECORDS_STATE: Final = "idempotency"
PARSED_STATE: Final = "rpc_message"
log = structlog.get_logger()

KEY_PATTERN: Final = rf"[\x21-\x7e]{{1,{MAX_KEY_LENGTH}}}"


class RpcRouter(APIRouter):
    """Binds functions to the methods of a contract by name: `send_message` serves `SendMessage`.

    A handler takes the request message as `request`, and whatever dependencies it declares. A unary handler
    returns the response message; a stream handler is an async function that returns an iterator of SSE bytes,
    so that what is wrong with a call is known before the first byte, or None (204) where nothing is left to come.
    """

    def __init__(self, service: RpcService) -> None:
        super().__init__()
        self._service = service
        self._bound: set[str] = set()

    def method(self, handler: Handler) -> Handler:
        """Serve a unary method."""
        method = self._bind(handler, stream=False)
        endpoint = _unary(method, handler)
        self.add_api_route(
            self._service.path(method), endpoint, methods=["POST"], include_in_schema=False
        )
        return handler

    def stream(self, handler: Handler) -> Handler:
        """Serve a stream, by POST and by GET with the fields in the query."""
        method = self._bind(handler, stream=True)
        endpoint = _stream(method, handler)
        path = self._service.path(method)
        self.add_api_route(path, endpoint, methods=["POST", "GET"], include_in_schema=False)
        return handler

    @property
    def sheddable_paths(self) -> list[str]:
        """The paths of what begins work: under overload they are refused."""
        return [
            self._service.path(method)
            for method in self._service.methods
            if not method.internal and not method.completes
        ]

    def verify_complete(self) -> None:
        """Fail where a method of the contract has no handler."""
        missing = {method.name for method in self._service.methods} - self._bound
        if missing:
            raise RuntimeError(f"{self._service.name} does not serve {sorted(missing)}")

    def _bind(self, handler: Handler, *, stream: bool) -> RpcMethod:
        name = "".join(part.capitalize() for part in handler.__name__.split("_"))
        method = self._service[name]
        if method.stream is not stream:
            raise RuntimeError(f"{self._service.name}/{name} is declared otherwise")
        self._bound.add(name)
        return method


def method_of(request: Request) -> RpcMethod:
    """The method of the contract that a request calls."""
    method: RpcMethod = request.scope["endpoint"].rpc_method
    return method


async def message_of(request: Request) -> Message:
    """The request message, from the body or from the query; parsed once."""
    known: Message | None = getattr(request.state, PARSED_STATE, None)
    if known is not None:
        return known
    message = method_of(request).request
    try:
        if request.method == "GET":
            parsed = message.model_validate(_query(request))
        else:
            parsed = message.model_validate_json(await request.body() or b"{}")
    except pydantic.ValidationError as error:
        raise invalid_argument(error) from error
    setattr(request.state, PARSED_STATE, parsed)
    return parsed


def invalid_argument(error: pydantic.ValidationError) -> RpcError:
    """INVALID_ARGUMENT that names each field by its path on the wire."""
    violations = [
        FieldViolation(field=_path(problem["loc"]), description=problem["msg"])
        for problem in error.errors()
    ]
    first = violations[0]
    return RpcError(
        ErrorCode.INVALID_ARGUMENT,
        f"{first.field}: {first.description}",
        violations=violations[:20],
    )


def idempotency_key(request: Request) -> IdempotencyKey | None:
    """The call's `Idempotency-Key`, scoped to the caller and the method."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1 or not re.fullmatch(KEY_PATTERN, values[0]):
        raise RpcError.invalid(
            "Idempotency-Key", f"must be one value of 1 to {MAX_KEY_LENGTH} visible characters"
        )
    return IdempotencyKey(caller_of(request).user_id, request.url.path, values[0])


async def _call_key(request: Request) -> IdempotencyKey:
    key = idempotency_key(request)
    if key is not None:
        return key
    call_id = request.headers.get("x-call-id") or uuid.uuid4().hex
    caller = caller_of(request).user_id
    return IdempotencyKey(caller, request.url.path, f"\0{call_id}", explicit=False)


CallKey = Annotated[IdempotencyKey, Depends(_call_key)]
"""Ids derived from it are the same for every delivery of one call."""


async def last_event_id(request: Request) -> int | None:
    """The `Last-Event-ID` of a reconnecting client; INVALID_ARGUMENT when it is not one of ours."""
    values = request.headers.getlist("last-event-id")
    if not values or values == [""]:
        return None
    if len(values) > 1 or not re.fullmatch(r"\d{1,18}", values[0]):
        raise RpcError.invalid("Last-Event-ID", "must be the id of an event of this stream")
    return int(values[0])


LastEventId = Annotated[int | None, Depends(last_event_id)]


def _unary(method: RpcMethod, handler: Handler) -> Handler:
    async def endpoint(http_request: Request, **dependencies: Any) -> Response:
        message = await message_of(http_request)
        call = functools.partial(handler, request=message, **dependencies)
        key = idempotency_key(http_request) if method.idempotent else None
        if key is None:
            return _json((await call()).to_json())
        records: IdempotencyRecords = getattr(http_request.app.state, RECORDS_STATE)
        body = await http_request.body()
        reply, replayed = await records.run(key, body, functools.partial(_as_reply, call))
        headers = {"idempotent-replayed": "true"} if replayed else None
        return Response(reply.body, reply.status, headers, "application/json")

    return _endpoint(endpoint, method, handler)


def _stream(method: RpcMethod, handler: Handler) -> Handler:
    async def endpoint(http_request: Request, **dependencies: Any) -> Response:
        message = await message_of(http_request)
        events: AsyncIterator[bytes] | None = await handler(request=message, **dependencies)
        if events is None:
            return Response(status_code=204)
        return EventStream(ended_in_order(events), STREAM_HEADERS)

    return _endpoint(endpoint, method, handler)


async def ended_in_order(events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """A stream whose failure midway is its last event, `error`: by then no status can say it any more.

    The client resumes after the last id that it has seen, as after any cut.
    """
    async with aclosing(cast("AsyncGenerator[bytes]", events)) as open_events:
        try:
            async for piece in open_events:
                yield piece
        except Exception as error:
            yield error_event(_shown(error))


def error_event(error: RpcError) -> bytes:
    """The event `error`, which ends a stream without its terminal event."""
    return b"event: error\ndata: " + error.to_body().to_json() + b"\n\n"


def _shown(error: Exception) -> RpcError:
    if isinstance(error, RpcError):
        return error
    if isinstance(error, SidecarError):
        log.warning("sidecar.failed", error=str(error))
        return unavailable(error)
    log.error("stream.failed", exc_info=error)
    return internal_error()


async def _as_reply(call: Callable[[], Awaitable[Message]]) -> StoredReply:
    try:
        return StoredReply(200, (await call()).to_json())
    except RpcError as error:
        if error.status >= 500 or error.retryable:
            raise
        return StoredReply(error.status, error.to_body().to_json())


def _endpoint(endpoint: Any, method: RpcMethod, handler: Handler) -> Handler:
    """Give the endpoint its method, and the handler's dependencies, so that FastAPI resolves them."""
    http_request = inspect.Parameter(
        "http_request", inspect.Parameter.KEYWORD_ONLY, annotation=Request
    )
    taken = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(handler).parameters.items()
        if name != "request"
    ]
    endpoint.__signature__ = inspect.Signature([http_request, *taken])
    endpoint.__name__ = handler.__name__
    endpoint.rpc_method = method
    return endpoint


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _query(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in fields:
            raise RpcError.invalid(name, "given more than once")
        fields[name] = value
    return fields


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or "body"
