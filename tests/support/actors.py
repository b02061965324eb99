"""Calls actors through a chosen sidecar, as the app beside that sidecar does."""

import json
from typing import Any

import grpc.aio
from dapr.proto import api_v1
from dapr.proto.runtime.v1 import dapr_pb2_grpc

from services.cli.stack import Stack
from services.cli.stack.ports import LOOPBACK


async def invoke_actor(
    stack: Stack, host: str, actor: tuple[str, str], method: str, body: Any, timeout: float
) -> Any:
    """The method's Reply; raises grpc.aio.AioRpcError where its outcome is unknown."""
    port = stack.spec(f"{host}-daprd").ports[f"gRPC of the sidecar of {host}"]
    actor_type, actor_id = actor
    request = api_v1.InvokeActorRequest(
        actor_type=actor_type, actor_id=actor_id, method=method, data=json.dumps(body).encode()
    )
    token = (("dapr-api-token", stack.api_token(host)),)
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        stub: Any = dapr_pb2_grpc.DaprStub(channel)
        reply = await stub.InvokeActor(request, metadata=token, timeout=timeout)
    return json.loads(reply.data)
