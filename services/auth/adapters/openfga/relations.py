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

from services.auth.adapters.openfga.calls import StoreLost, client_of, reaching
from services.auth.adapters.openfga.explain import node_of
from services.auth.adapters.openfga.names import decoded, encoded, fact_of, fields
from services.auth.adapters.openfga.store import STORE, Alone, PinnedStore
from services.auth.domain.changes import taken_away
from services.auth.ports.feed import AccessFeed
from services.auth.ports.relations import MAX_CHANGES
from services.contracts.auth.authorization import (
    ExpandNode,
    ReadChangesResponse,
    RelationTuple,
    TupleChange,
)
from services.kit.dapr.sidecar import unavailable
from services.kit.errors import ErrorCode, RpcError

PAGE: Final = 100
FRESH: Final = {"consistency": "HIGHER_CONSISTENCY"}
QUICK: Final = {"consistency": "MINIMIZE_LATENCY"}
IDEMPOTENT: Final = ConflictOptions(
    ClientWriteRequestOnDuplicateWrites.IGNORE, ClientWriteRequestOnMissingDeletes.IGNORE
)


class OpenFgaRelations:
    """`Relations` in one store of an OpenFGA server.

    What is removed goes into the change feed. What is added does not: it makes no yes a no, for the model has no
    `but not`, and a no is never remembered.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        alone: Alone,
        feed: AccessFeed,
        store: str = STORE,
    ) -> None:
        self._client: Any = client_of(url, token)
        self._store = PinnedStore(self._client, store, alone, feed)
        self._feed = feed

    async def prepare(self) -> None:
        """Find or make the store and its model; the first call does it otherwise."""
        await self._store.pin()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def check(self, questions: Sequence[RelationTuple], *, fresh: bool) -> list[bool]:
        """Whether each follows, by one request."""
        if len(questions) == 1:
            request = ClientCheckRequest(**fields(questions[0]))
            answer = await self._ask(lambda: self._client.check(request, _seen(fresh)))
            return [answer.allowed is True]
        return await self._check_all(questions, fresh)

    async def write(
        self, writes: Sequence[RelationTuple], deletes: Sequence[RelationTuple] = ()
    ) -> None:
        """Change facts by one request; what is so already is no failure."""
        if not writes and not deletes:
            return
        if len(writes) + len(deletes) > MAX_CHANGES:
            raise RpcError(ErrorCode.INVALID_ARGUMENT, f"More than {MAX_CHANGES} facts at once.")
        request = ClientWriteRequest(
            writes=[ClientTuple(**fields(fact)) for fact in writes],
            deletes=[ClientTuple(**fields(fact)) for fact in deletes],
        )
        async with self._feed.taking_away(taken_away(deletes, self._store.holders)):
            await self._ask(lambda: self._client.write(request, {"conflict": IDEMPOTENT}))

    async def read(self, target: str) -> list[RelationTuple]:
        """Every fact about an object."""
        return await self._read(ReadRequestTupleKey(object=encoded(target)))

    async def read_subject(self, subject: str) -> list[RelationTuple]:
        """Every fact that names a subject, type by type."""
        await self._store.pin()
        found: list[RelationTuple] = []
        for kind in self._store.kinds:
            key = ReadRequestTupleKey(user=encoded(subject), object=f"{kind}:")
            found += await self._read(key)
        return found

    async def objects(self, subject: str, relation: str, kind: str, *, fresh: bool) -> list[str]:
        """Objects of a type."""
        request = ClientListObjectsRequest(user=encoded(subject), relation=relation, type=kind)
        answer = await self._ask(lambda: self._client.list_objects(request, _seen(fresh)))
        return [decoded(each) for each in answer.objects]

    async def users(self, relation: str, target: str, *, fresh: bool) -> list[str]:
        """Users, also those who are members of what has the relation."""
        kind, _, name = encoded(target).partition(":")
        request = ClientListUsersRequest(
            object=FgaObject(type=kind, id=name),
            relation=relation,
            user_filters=[UserTypeFilter(type="user")],
        )
        answer = await self._ask(lambda: self._client.list_users(request, _seen(fresh)))
        return [decoded(f"user:{each.object.id}") for each in answer.users if each.object]

    async def expand(self, relation: str, target: str) -> ExpandNode:
        """The tree that OpenFGA gives, a step deep."""
        request = ClientExpandRequest(relation=relation, object=encoded(target))
        answer = await self._ask(lambda: self._client.expand(request, _seen(fresh=True)))
        return node_of(answer.tree.root)

    async def changes(
        self, kind: str | None, limit: int, cursor: str | None
    ) -> ReadChangesResponse:
        """A page of the change log; the cursor is OpenFGA's."""
        request = ClientReadChangesRequest(type=kind or "")
        page = {"page_size": limit, "continuation_token": cursor or ""}
        answer = await self._ask(lambda: self._client.read_changes(request, dict(page)))
        changes = [
            TupleChange(
                tuple=fact_of(each.tuple_key),
                written=each.operation == "TUPLE_OPERATION_WRITE",
                at=each.timestamp,
            )
            for each in answer.changes
        ]
        return ReadChangesResponse(changes=changes, cursor=answer.continuation_token or cursor)

    async def _check_all(self, questions: Sequence[RelationTuple], fresh: bool) -> list[bool]:
        items = [
            ClientBatchCheckItem(**fields(question), correlation_id=str(number))
            for number, question in enumerate(questions)
        ]
        request = ClientBatchCheckRequest(checks=items)
        answer = await self._ask(lambda: self._client.batch_check(request, _seen(fresh)))
        allowed: dict[str, bool] = {}
        for each in answer.result:
            if each.error is not None:
                raise _refused(each.error)
            allowed[each.correlation_id] = each.allowed is True
        return [allowed[str(number)] for number in range(len(questions))]

    async def _read(self, key: ReadRequestTupleKey) -> list[RelationTuple]:
        found: list[RelationTuple] = []
        cursor = ""
        while True:
            options = {**FRESH, "page_size": PAGE, "continuation_token": cursor}
            page = await self._ask(lambda options=options: self._client.read(key, dict(options)))
            found += [fact_of(each.key) for each in page.tuples]
            cursor = page.continuation_token
            if not cursor:
                return found

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """One call on the pinned store and model; once more where those are no longer there."""
        try:
            await self._store.pin()
            return await reaching(call)
        except StoreLost:
            self._store.unpin()
        try:
            await self._store.pin()
            return await reaching(call)
        except StoreLost as error:
            raise unavailable(error) from error


def _seen(fresh: bool) -> dict[str, Any]:
    return dict(FRESH if fresh else QUICK)  # the SDK adds headers to what it is given


def _refused(error: Any) -> RpcError:
    if error.input_error is not None:
        return RpcError(ErrorCode.INVALID_ARGUMENT, "The authorization model does not know this.")
    return unavailable(RuntimeError(str(error.internal_error)))
