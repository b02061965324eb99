"""gRPC client of this app's daprd, for state, actors, pub/sub, jobs and bindings."""

from collections.abc import Sequence
from typing import Any, Final

from dapr.clients.grpc._channel import create_aio_channel
from dapr.proto import api_v1, common_v1
from dapr.proto.runtime.v1 import dapr_pb2_grpc
from grpc import StatusCode
from grpc.aio import AioRpcError

from services.kit.dapr.state_rows import StateStoreError, StateWrite, StoredValue, WriteMode
from services.kit.telemetry.tracing import current_traceparent

STATE_STORE: Final = "statestore"
CALL_TIMEOUT_SECONDS: Final = 15.0
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
NO_ANSWER: Final = frozenset(
    {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED}
)
"""Status codes that gRPC itself raises without a response."""


class SidecarError(StateStoreError):
    """The sidecar, or a component behind it, failed; `status` is its gRPC status."""

    status = StatusCode.UNKNOWN


class TooLarge(SidecarError):
    """The request or response is over gRPC's message limit (4 MiB)."""


class Sidecar:
    """Calls daprd over one channel. Failures are `SidecarError`; nothing is retried here."""

    def __init__(self, address: str | None = None) -> None:
        self._channel: Any = create_aio_channel(address, max_grpc_message_length=MAX_MESSAGE_BYTES)
        self._stub: Any = dapr_pb2_grpc.DaprStub(self._channel)

    @property
    def channel(self) -> Any:
        """The channel, for the SDK's own clients."""
        return self._channel

    async def close(self) -> None:
        await self._channel.close()

    async def invoke_actor(self, actor_type: str, actor_id: str, method: str, data: bytes) -> bytes:
        traceparent = current_traceparent()
        request = api_v1.InvokeActorRequest(
            actor_type=actor_type, actor_id=actor_id, method=method, data=data
        )
        metadata = (("traceparent", traceparent),) if traceparent else ()
        response = await self._call(self._stub.InvokeActor, request, metadata)
        return response.data

    async def read(self, key: str) -> StoredValue:
        """Read one row of the state store."""
        request = api_v1.GetStateRequest(
            store_name=STATE_STORE,
            key=key,
            consistency=common_v1.StateOptions.StateConsistency.CONSISTENCY_STRONG,
        )
        response = await self._call(self._stub.GetState, request)
        return StoredValue(key, response.data, response.etag)

    async def read_bulk(self, keys: Sequence[str]) -> list[StoredValue]:
        """Read rows by one request, in the order of `keys`; TooLarge if the response is over the message limit."""
        request = api_v1.GetBulkStateRequest(store_name=STATE_STORE, keys=keys, parallelism=10)
        response = await self._call(self._stub.GetBulkState, request)
        found: dict[str, Any] = {}
        for item in response.items:
            if item.error:
                raise SidecarError(f"state row unreadable: {item.error}")
            found[item.key] = item
        return [
            StoredValue(key, found[key].data, found[key].etag)
            if key in found
            else StoredValue(key, b"", "")
            for key in keys
        ]

    async def write(self, writes: Sequence[StateWrite]) -> None:
        """Write rows in one transaction: all or none."""
        operations = [_operation(write) for write in writes]
        request = api_v1.ExecuteStateTransactionRequest(
            storeName=STATE_STORE, operations=operations
        )
        await self._call(self._stub.ExecuteStateTransaction, request)

    async def publish(
        self, pubsub: str, topic: str, event: bytes, content_type: str, seconds: float
    ) -> None:
        """Publish an event; durable in the broker on return."""
        request = api_v1.PublishEventRequest(
            pubsub_name=pubsub, topic=topic, data=event, data_content_type=content_type
        )
        await self._call(self._stub.PublishEvent, request, seconds=seconds)

    async def request(self, method: str, request: Any, seconds: float) -> Any:
        """Call another method of daprd's API, by its name."""
        return await self._call(getattr(self._stub, method), request, seconds=seconds)

    async def hosted_actors(self) -> set[str]:
        """The actor types that daprd hosts here; none before it has a placement table."""
        return await self.placed_actors() or set()

    async def placed_actors(self) -> set[str] | None:
        """Like `hosted_actors`; None before it has a placement table."""
        found = await self._call(self._stub.GetMetadata, api_v1.GetMetadataRequest())
        runtime = found.actor_runtime
        return {each.type for each in runtime.active_actors} if runtime.host_ready else None

    async def _call(
        self,
        method: Any,
        request: Any,
        metadata: tuple[tuple[str, str], ...] = (),
        seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> Any:
        try:
            return await method(request, timeout=seconds, metadata=metadata)
        except AioRpcError as error:
            kind = TooLarge if error.code() is StatusCode.RESOURCE_EXHAUSTED else SidecarError
            answered = error.code() not in NO_ANSWER
            failure = kind(f"{error.code().name}: {error.details()}", answered=answered)
            failure.status = error.code()
            raise failure from error


def _operation(write: StateWrite) -> Any:
    first_write = common_v1.StateOptions.StateConcurrency.CONCURRENCY_FIRST_WRITE
    fields: dict[str, Any] = {"key": write.key}
    if write.data is not None:
        fields["value"] = write.data
    if write.mode is WriteMode.MATCH:
        fields["etag"] = common_v1.Etag(value=write.etag)
    if write.mode is not WriteMode.ANY:
        fields["options"] = common_v1.StateOptions(concurrency=first_write)
    return api_v1.TransactionalStateOperation(
        operationType="delete" if write.data is None else "upsert",
        request=common_v1.StateItem(**fields),
    )
