"""The bindings of an app: calls of outside systems, and the routes by which the sidecar delivers their messages."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dapr.proto import api_v1
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from grpc import StatusCode

from services.kit.access.identity import refuse_invocation
from services.kit.bindings import AnyBinding, InputBinding, OutputBinding
from services.kit.dapr.deliveries import HANDLER_SECONDS, error_of
from services.kit.dapr.pubsub.admission import admit
from services.kit.dapr.sidecar import MAX_MESSAGE_BYTES, Sidecar, SidecarError
from services.kit.errors import AnyErrorCode, ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.http.dependencies import get_dependency

if TYPE_CHECKING:  # SQLAlchemy takes 20 MB
    from services.kit.storage.db import Database, Transaction

CREDENTIAL: Final = "dapr-api-token"
"""The header that no handler gets to see."""
_CODES: Final[Mapping[StatusCode, AnyErrorCode]] = {
    StatusCode.UNAVAILABLE: ErrorCode.UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED: ErrorCode.DEADLINE_EXCEEDED,
    StatusCode.RESOURCE_EXHAUSTED: ErrorCode.PAYLOAD_TOO_LARGE,
}
"""Any other status is the outside system's error, or that of the component."""


@dataclass(frozen=True, slots=True)
class BindingMessage:
    """A message of an input binding; `metadata` has the component's keys in lower case."""

    data: bytes
    metadata: Mapping[str, str]
    id: str | None


@dataclass(frozen=True, slots=True)
class BindingReply:
    """What an operation returned."""

    data: bytes
    metadata: Mapping[str, str]


Handler = Callable[[BindingMessage, "Transaction"], Awaitable[None]]


class Bindings:
    """The bindings in an app's manifest."""

    def __init__(
        self, app_id: str, bindings: Iterable[AnyBinding], database: "Database", sidecar: Sidecar
    ) -> None:
        self._app_id = app_id
        self._bindings = {binding.name: binding for binding in bindings}
        self._database = database
        self._sidecar = sidecar
        self._handlers: dict[str, Handler] = {}
        self._locks = {name: asyncio.Lock() for name in self._bindings}

    async def invoke(
        self,
        binding: OutputBinding,
        data: bytes = b"",
        metadata: Mapping[str, str] | None = None,
        *,
        operation: str = "create",
    ) -> BindingReply:
        """Call an outside system, once: nothing is retried here or by the sidecar.

        Raises:
            RpcError: INVALID_ARGUMENT for metadata that is not declared or has control characters, such as the line
                break of a second header; PAYLOAD_TOO_LARGE; UPSTREAM_ERROR if the system refuses or cannot be reached;
                UNAVAILABLE and DEADLINE_EXCEEDED, with unknown outcome.
        """
        given = dict(metadata or {})
        self._require(binding, given, operation)
        if len(data) > MAX_MESSAGE_BYTES // 2:
            raise _too_large(binding)
        request = api_v1.InvokeBindingRequest(
            name=binding.name, data=data, metadata=given, operation=operation
        )
        try:
            async with asyncio.timeout(binding.seconds):
                reply = await self._call(binding, request)
        except TimeoutError as error:
            raise _failure(binding, ErrorCode.DEADLINE_EXCEEDED) from error
        except SidecarError as error:
            code = _CODES.get(error.status, ErrorCode.UPSTREAM_ERROR)
            raise _failure(binding, code) from error
        return BindingReply(reply.data, dict(reply.metadata))

    def add(self, binding: InputBinding, handler: Handler) -> None:
        """Handle the messages of a binding: changes in the transaction happen once per message with an id.

        A message whose handler fails is delivered again if its component does so; one without an id may be repeated.
        """
        if binding is not self._bindings.get(binding.name) or binding.name in self._handlers:
            raise TypeError(f"{binding.name} is not in the manifest, or has two handlers")
        self._handlers[binding.name] = handler

    def require_handlers(self) -> None:
        """RuntimeError for a declared input binding without a handler."""
        inputs = {name for name, each in self._bindings.items() if isinstance(each, InputBinding)}
        if missing := inputs - self._handlers.keys():
            raise RuntimeError(f"{self._app_id}: no handler for the bindings {sorted(missing)}")

    async def deliver(self, binding: InputBinding, message: BindingMessage) -> None:
        """Handle a message. An exception lets the component deliver it again."""
        try:
            await self._handle(binding, message)
        except TimeoutError as error:
            raise error_of(error) from error

    async def _handle(self, binding: InputBinding, message: BindingMessage) -> None:
        handler, source = self._handlers[binding.name], f"binding/{binding.name}"
        async with self._database.transaction() as transaction:
            is_new = message.id is None or await admit(
                transaction, self._app_id, source, message.id
            )
            if not is_new:
                return
            async with asyncio.timeout(HANDLER_SECONDS):
                await handler(message, transaction)
            await failpoint("bindings.before_commit")

    async def _call(self, binding: OutputBinding, request: Any) -> Any:
        if not binding.exclusive:
            return await self._sidecar.request("InvokeBinding", request, binding.seconds)
        async with self._locks[binding.name]:
            return await self._sidecar.request("InvokeBinding", request, binding.seconds)

    def _require(self, binding: OutputBinding, given: Mapping[str, str], operation: str) -> None:
        if binding is not self._bindings.get(binding.name):
            raise TypeError(f"{binding.name} is not in `bindings` of the manifest")
        if operation not in binding.operations:
            raise TypeError(f"{binding.name} does not declare the operation {operation}")
        if unequal := sorted(given.keys() ^ set(binding.metadata)):
            raise RpcError.invalid(f"metadata.{unequal[0]}", "is missing, or is not declared")
        for key, value in given.items():
            if not value or not value.isprintable():
                raise RpcError.invalid(f"metadata.{key}", "is empty or has control characters")


def route_bindings(app: FastAPI, bindings: Iterable[AnyBinding]) -> None:
    """Add a route per input binding: POST delivers, and OPTIONS is how daprd asks at its start whether there is one."""
    for binding in bindings:
        if isinstance(binding, InputBinding):
            receive = functools.partial(_receive, binding)
            app.add_api_route(
                f"/{binding.name}",
                receive,
                methods=["POST", "OPTIONS"],
                include_in_schema=False,
            )


async def _receive(binding: InputBinding, request: Request) -> Response:
    refuse_invocation(request, "Bindings are delivered by the sidecar only.")
    if request.method == "POST":
        message_id = request.headers.get(binding.id_key) if binding.id_key else None
        metadata = {key: value for key, value in request.headers.items() if key != CREDENTIAL}
        message = BindingMessage(await request.body(), metadata, message_id)
        await get_dependency(request.app, Bindings).deliver(binding, message)
    return JSONResponse({})


def _failure(binding: OutputBinding, code: AnyErrorCode) -> RpcError:
    if code is ErrorCode.PAYLOAD_TOO_LARGE:
        return _too_large(binding)
    return RpcError(code, f"The call of {binding.name} failed.")


def _too_large(binding: OutputBinding) -> RpcError:
    return RpcError(ErrorCode.PAYLOAD_TOO_LARGE, f"The data for {binding.name} is too large.")
