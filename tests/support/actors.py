"""Calls actor methods through a chosen sidecar, as the app beside it does."""

import asyncio
import json
from typing import Any

import grpc.aio
from dapr.proto import api_v1
from dapr.proto.runtime.v1 import dapr_pb2_grpc

from services.cli.stack import Stack
from services.cli.stack.ports import LOOPBACK


class ActorCalls:
    """Keeps one connection per sidecar, so that the calls of a burst arrive together."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._in_flight: set[asyncio.Future[Any]] = set()

    async def invoke(
        self, host: str, actor: tuple[str, str], method: str, body: Any, timeout: float
    ) -> Any:
        """The method's Reply; raises grpc.aio.AioRpcError or TimeoutError if its outcome is unknown.

        A timeout does not cancel the call at the sidecar, as after the death of an app.
        """
        actor_type, actor_id = actor
        request = api_v1.InvokeActorRequest(
            actor_type=actor_type, actor_id=actor_id, method=method, data=json.dumps(body).encode()
        )
        token = (("dapr-api-token", self._stack.api_token(host)),)
        stub: Any = dapr_pb2_grpc.DaprStub(self._channel(host))
        call = asyncio.ensure_future(stub.InvokeActor(request, metadata=token))
        self._in_flight.add(call)
        call.add_done_callback(self._ended)
        reply = await asyncio.wait_for(asyncio.shield(call), timeout)
        return json.loads(reply.data)

    def _ended(self, call: "asyncio.Future[Any]") -> None:
        self._in_flight.discard(call)
        if not call.cancelled():
            call.exception()  # marks it as retrieved; its caller may have timed out

    async def close(self) -> None:
        """Cancel calls in flight and close the connections."""
        for call in list(self._in_flight):
            call.cancel()
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, host: str) -> grpc.aio.Channel:
        if host not in self._channels:
            port = self._stack.spec(f"{host}-daprd").ports[f"gRPC of the sidecar of {host}"]
            # Reconnect to a restarted sidecar at once; gRPC's default backoff is seconds.
            options = (("grpc.max_reconnect_backoff_ms", 500),)
            self._channels[host] = grpc.aio.insecure_channel(f"{LOOPBACK}:{port}", options)
        return self._channels[host]
