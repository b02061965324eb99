"""Routes of an RPC service, derived from its contract: paths, parsing, errors, idempotency and streams.

Handlers declare dependencies as in FastAPI, by `Annotated[…, Depends(…)]`, but its router is bypassed: it takes three
times as long per call.
"""

import functools
import inspect
import re
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast, get_type_hints

import pydantic
import structlog
from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from services.kit.access.identity import caller_of, calling_app
from services.kit.contract import AnyMethod, Message, RpcService
from services.kit.dapr.state_rows import StateStoreError
from services.kit.errors import ErrorCode, FieldViolation, RpcError, internal_error, unavailable
from services.kit.http.dependencies import get_dependency
from services.kit.http.event_stream import EventStream
from services.kit.http.idempotency import (
    MAX_KEY_LENGTH,
    IdempotencyKey,
    IdempotencyRecords,
    StoredReply,
)

Handler = Callable[..., Any]

STREAM_HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}
PARSED_STATE: Final = "rpc_message"
log = structlog.get_logger()

KEY_PATTERN: Final = rf"[\x21-\x7e]{{1,{MAX_KEY_LENGTH}}}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A served method: its handler, and a resolver per dependency."""

    rpc_method: AnyMethod
    answer: Callable[..., Awaitable[Response]]
    dependencies: Mapping[str, Callable[[Request], Awaitable[Any]]]

    @property
    def path(self) -> str:
        return self.rpc_method.path

    async def serve(self, request: Request) -> Response:
        """Resolve the dependencies in order, then call the handler."""
        given = {name: await resolve(request) for name, resolve in self.dependencies.items()}
        return await self.answer(request, **given)


class RpcRouter:
    """Binds functions to the methods of a contract by name: `create_api_key` serves `CreateApiKey`.

    A handler takes the request message as `request`; every other parameter is a dependency, an async function of the
    HTTP request. A unary handler returns the response message. A stream handler returns an iterator of SSE bytes, or
    None (204) if no event will follow; being an async function, it can fail before the response begins.
    """

    def __init__(self, service: RpcService) -> None:
        self._service = service
        self._endpoints: dict[str, Endpoint] = {}

    def method(self, handler: Handler) -> Handler:
        """Serve a unary method, by POST."""
        return self._bind(handler, _unary, stream=False)

    def stream(self, handler: Handler) -> Handler:
        """Serve a stream method, by POST, and by GET with the fields in the query."""
        return self._bind(handler, _stream, stream=True)

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints of all methods.

        Raises:
            RuntimeError: a method has no handler.
        """
        missing = {method.name for method in self._service.methods} - self._endpoints.keys()
        if missing:
            raise RuntimeError(f"{self._service.name} does not serve {sorted(missing)}")
        return list(self._endpoints.values())

    @property
    def sheddable_paths(self) -> list[str]:
        """Paths that load shedding may reject: public methods that do not complete begun work."""
        return [
            method.path
            for method in self._service.methods
            if not method.internal and not method.completes
        ]

    def _bind(
        self,
        handler: Handler,
        answer: Callable[[AnyMethod, Handler], Callable[..., Awaitable[Response]]],
        *,
        stream: bool,
    ) -> Handler:
        name = "".join(part.capitalize() for part in handler.__name__.split("_"))
        method = self._service[name]
        if method.is_stream is not stream:
            raise RuntimeError(f"{self._service.name}/{name}: unary and stream do not match")
        self._endpoints[name] = Endpoint(method, answer(method, handler), dependencies_of(handler))
        return handler


class RpcRoutes(BaseRoute):
    """Routes requests to endpoints by exact path."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = {endpoint.path: endpoint for endpoint in endpoints}

    @property
    def endpoints(self) -> list[Endpoint]:
        return list(self._endpoints.values())

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Look up the path; telemetry names the request by the endpoint."""
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            return Match.NONE, {}
        return Match.FULL, {"endpoint": endpoint, "route": endpoint}

    @override
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; 405 for an unsupported verb."""
        endpoint: Endpoint = scope["endpoint"]
        if scope["method"] not in endpoint.rpc_method.verbs:
            raise HTTPException(405)
        response = await endpoint.serve(Request(scope, receive, send))
        await response(scope, receive, send)


def dependencies_of(
    handler: Handler, given: Collection[str] = ("request",)
) -> dict[str, Callable[[Request], Awaitable[Any]]]:
    """The resolver of each parameter except the `given` ones.

    Raises:
        TypeError: a parameter has no `Depends` on an async function of the HTTP request alone.
    """
    hints = get_type_hints(handler, include_extras=True)
    found: dict[str, Callable[[Request], Awaitable[Any]]] = {}
    for name in inspect.signature(handler).parameters:
        if name in given:
            continue
        marks = getattr(hints.get(name), "__metadata__", ())
        calls = [mark.dependency for mark in marks if isinstance(mark, Dependency)]
        if len(calls) != 1 or calls[0] is None or not _takes_request(calls[0]):
            raise TypeError(
                f"{handler.__name__}({name}) needs Depends(an async function of Request)"
            )
        found[name] = calls[0]
    return found


def _takes_request(call: Callable[..., Any]) -> bool:
    plain = call if inspect.isfunction(call) else type(call).__call__
    return inspect.iscoroutinefunction(plain) and len(inspect.signature(call).parameters) == 1


def method_of(request: Request) -> AnyMethod:
    """The contract's method that a request calls."""
    endpoint: Endpoint = request.scope["endpoint"]
    return endpoint.rpc_method


async def message_of(request: Request) -> Message:
    """The request message from the body or query, parsed once per request."""
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
    """INVALID_ARGUMENT with one violation per field."""
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
    """The call's `Idempotency-Key`, scoped to method and caller: the user, or of an internal method the app."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1 or not re.fullmatch(KEY_PATTERN, values[0]):
        raise RpcError.invalid(
            "Idempotency-Key", f"must be one value of 1 to {MAX_KEY_LENGTH} visible characters"
        )
    return IdempotencyKey(_key_owner(request), request.url.path, values[0])


async def _call_key(request: Request) -> IdempotencyKey:
    key = idempotency_key(request)
    if key is not None:
        return key
    call_id = request.headers.get("x-call-id") or uuid.uuid4().hex
    return IdempotencyKey(_key_owner(request), request.url.path, f"\0{call_id}", explicit=False)


def _key_owner(request: Request) -> str:
    if method_of(request).internal:
        return f"app:{calling_app(request)}"
    return caller_of(request).user_id


CallKey = Annotated[IdempotencyKey, Depends(_call_key)]
"""Key for ids that must be equal when one call is delivered twice."""


async def last_event_id(request: Request) -> int | None:
    """The `Last-Event-ID` of a reconnecting client; INVALID_ARGUMENT if malformed."""
    values = request.headers.getlist("last-event-id")
    if not values or values == [""]:
        return None
    if len(values) > 1 or not re.fullmatch(r"\d{1,18}", values[0]):
        raise RpcError.invalid("Last-Event-ID", "must be the id of an event of this stream")
    return int(values[0])


LastEventId = Annotated[int | None, Depends(last_event_id)]


def _unary(method: AnyMethod, handler: Handler) -> Callable[..., Awaitable[Response]]:
    async def answer(http_request: Request, **dependencies: Any) -> Response:
        message = await message_of(http_request)
        call = functools.partial(handler, request=message, **dependencies)
        key = idempotency_key(http_request) if method.idempotent else None
        if key is None:
            return _json((await call()).to_json())
        records = get_dependency(http_request.app, IdempotencyRecords)
        body = await http_request.body()
        reply, replayed = await records.run(key, body, functools.partial(_as_reply, call))
        headers = {"idempotent-replayed": "true"} if replayed else None
        return Response(reply.body, reply.status, headers, "application/json")

    return answer


def _stream(_: AnyMethod, handler: Handler) -> Callable[..., Awaitable[Response]]:
    async def answer(http_request: Request, **dependencies: Any) -> Response:
        message = await message_of(http_request)
        events: AsyncIterator[bytes] | None = await handler(request=message, **dependencies)
        if events is None:
            return Response(status_code=204)
        return EventStream(with_error_event(events), STREAM_HEADERS)

    return answer


async def with_error_event(events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Turn an exception of the stream into a final event `error`: the HTTP status is already sent.

    The client may resume after its last event id, as after a lost connection.
    """
    async with aclosing(cast("AsyncGenerator[bytes]", events)) as open_events:
        try:
            async for piece in open_events:
                yield piece
        except Exception as error:
            yield error_event(_to_rpc_error(error))


def error_event(error: RpcError) -> bytes:
    """The SSE event `error`, which ends a stream before its terminal event."""
    return b"event: error\ndata: " + error.to_body().to_json() + b"\n\n"


def _to_rpc_error(error: Exception) -> RpcError:
    if isinstance(error, RpcError):
        return error
    if isinstance(error, StateStoreError):
        log.warning("state.failed", error=str(error))
        return unavailable()
    log.error("stream.failed", exc_info=error)
    return internal_error()


async def _as_reply(call: Callable[[], Awaitable[Message]]) -> StoredReply:
    try:
        return StoredReply(200, (await call()).to_json())
    except RpcError as error:
        if error.status >= 500 or error.retryable:
            raise
        return StoredReply(error.status, error.to_body().to_json())


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
