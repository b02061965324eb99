"""`Relations` over OpenFGA."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from openfga_sdk.client.models import (
    ClientBatchCheckItem,
    ClientBatchCheckRequest,
    ClientCheckRequest,
    ClientExpandRequest,
    ClientListObjectsRequest,
    ClientTuple,
    ClientWriteRequest,
)
from openfga_sdk.client.models.list_users_request import ClientListUsersRequest
from openfga_sdk.client.models.read_changes_request import ClientReadChangesRequest
from openfga_sdk.client.models.write_conflict_opts import (
    ClientWriteRequestOnDuplicateWrites,
    ClientWriteRequestOnMissingDeletes,
    ConflictOptions,
)
from openfga_sdk.models.fga_object import FgaObject
from openfga_sdk.models.read_request_tuple_key import ReadRequestTupleKey
from openfga_sdk.models.user_type_filter import UserTypeFilter

from services.auth.adapters.openfga.calls import StoreMissing, call_openfga, client_of
from services.auth.adapters.openfga.explain import node_of
from services.auth.adapters.openfga.names import decoded, encoded, fields, tuple_of
from services.auth.adapters.openfga.store import STORE, Exclusive, PinnedStore
from services.auth.domain.changes import affected_access
from services.auth.ports.relations import MAX_CHANGES, AccessFeed
from services.contracts.auth.authorization import (
    ExpandNode,
    ReadChangesResponse,
    RelationTuple,
    TupleChange,
)
from services.kit.errors import ErrorCode, RpcError, unavailable

PAGE: Final = 100
FRESH: Final = {"consistency": "HIGHER_CONSISTENCY"}
QUICK: Final = {"consistency": "MINIMIZE_LATENCY"}
IDEMPOTENT: Final = ConflictOptions(
    ClientWriteRequestOnDuplicateWrites.IGNORE, ClientWriteRequestOnMissingDeletes.IGNORE
)


class OpenFgaRelations:
    """`Relations` in one store of an OpenFGA server.

    Deletes are published in the access feed. Writes are not: the model has no `but not`, so they only give access,
    and denials are not cached.
    """

    def __init__(
        self, url: str, token: str, *, exclusive: Exclusive, feed: AccessFeed, store: str = STORE
    ) -> None:
        self._client: Any = client_of(url, token)
        self._store = PinnedStore(self._client, store, exclusive, feed)
        self._feed = feed

    async def prepare(self) -> None:
        """Find or create the store and its model, as the first call would."""
        await self._store.pin()

    async def close(self) -> None:
        await self._client.close()

    async def check(self, checks: Sequence[RelationTuple], *, fresh: bool) -> list[bool]:
        if len(checks) == 1:
            request = ClientCheckRequest(**fields(checks[0]))
            answer = await self._ask(lambda: self._client.check(request, _consistency(fresh)))
            return [answer.allowed is True]
        return await self._check_all(checks, fresh)

    async def write(
        self, writes: Sequence[RelationTuple], deletes: Sequence[RelationTuple] = ()
    ) -> None:
        if not writes and not deletes:
            return
        if len(writes) + len(deletes) > MAX_CHANGES:
            raise RpcError(
                ErrorCode.INVALID_ARGUMENT, f"More than {MAX_CHANGES} tuples in one write."
            )
        request = ClientWriteRequest(
            writes=[ClientTuple(**fields(each)) for each in writes],
            deletes=[ClientTuple(**fields(each)) for each in deletes],
        )
        async with self._feed.publishing(affected_access(deletes, self._store.holders)):
            await self._ask(lambda: self._client.write(request, {"conflict": IDEMPOTENT}))

    async def read(self, target: str) -> list[RelationTuple]:
        return await self._read(ReadRequestTupleKey(object=encoded(target)))

    async def read_subject(self, subject: str) -> list[RelationTuple]:
        await self._store.pin()
        found: list[RelationTuple] = []
        for kind in self._store.kinds:
            key = ReadRequestTupleKey(user=encoded(subject), object=f"{kind}:")
            found += await self._read(key)
        return found

    async def objects(self, subject: str, relation: str, kind: str, *, fresh: bool) -> list[str]:
        request = ClientListObjectsRequest(user=encoded(subject), relation=relation, type=kind)
        answer = await self._ask(lambda: self._client.list_objects(request, _consistency(fresh)))
        return [decoded(each) for each in answer.objects]

    async def users(self, relation: str, target: str, *, fresh: bool) -> list[str]:
        kind, _, name = encoded(target).partition(":")
        request = ClientListUsersRequest(
            object=FgaObject(type=kind, id=name),
            relation=relation,
            user_filters=[UserTypeFilter(type="user")],
        )
        answer = await self._ask(lambda: self._client.list_users(request, _consistency(fresh)))
        return [decoded(f"user:{each.object.id}") for each in answer.users if each.object]

    async def expand(self, relation: str, target: str) -> ExpandNode:
        request = ClientExpandRequest(relation=relation, object=encoded(target))
        answer = await self._ask(lambda: self._client.expand(request, _consistency(fresh=True)))
        return node_of(answer.tree.root)

    async def changes(
        self, kind: str | None, limit: int, cursor: str | None
    ) -> ReadChangesResponse:
        request = ClientReadChangesRequest(type=kind or "")
        page = {"page_size": limit, "continuation_token": cursor or ""}
        answer = await self._ask(lambda: self._client.read_changes(request, dict(page)))
        changes = [
            TupleChange(
                tuple=tuple_of(each.tuple_key),
                written=each.operation == "TUPLE_OPERATION_WRITE",
                at=each.timestamp,
            )
            for each in answer.changes
        ]
        return ReadChangesResponse(changes=changes, cursor=answer.continuation_token or cursor)

    async def _check_all(self, checks: Sequence[RelationTuple], fresh: bool) -> list[bool]:
        items = [
            ClientBatchCheckItem(**fields(each), correlation_id=str(number))
            for number, each in enumerate(checks)
        ]
        request = ClientBatchCheckRequest(checks=items)
        answer = await self._ask(lambda: self._client.batch_check(request, _consistency(fresh)))
        allowed: dict[str, bool] = {}
        for each in answer.result:
            if each.error is not None:
                raise _refused(each.error)
            allowed[each.correlation_id] = each.allowed is True
        return [allowed[str(number)] for number in range(len(checks))]

    async def _read(self, key: ReadRequestTupleKey) -> list[RelationTuple]:
        found: list[RelationTuple] = []
        cursor = ""
        while True:
            options = {**FRESH, "page_size": PAGE, "continuation_token": cursor}
            page = await self._ask(lambda options=options: self._client.read(key, dict(options)))
            found += [tuple_of(each.key) for each in page.tuples]
            cursor = page.continuation_token
            if not cursor:
                return found

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call on the pinned store and model; find both again and repeat if they are missing."""
        try:
            await self._store.pin()
            return await call_openfga(call)
        except StoreMissing:
            self._store.unpin()
        try:
            await self._store.pin()
            return await call_openfga(call)
        except StoreMissing as error:
            raise unavailable() from error


def _consistency(fresh: bool) -> dict[str, Any]:
    return dict(FRESH if fresh else QUICK)  # a copy: the SDK adds headers to it


def _refused(error: Any) -> RpcError:
    if error.input_error is not None:
        return RpcError(ErrorCode.INVALID_ARGUMENT, "Not in the authorization model.")
    return unavailable()
