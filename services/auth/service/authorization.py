"""Access checks and relationship tuples, for other apps and for auth's own routes."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.auth.ports.relations import MAX_CHANGES, AccessFeed, Relations, ShareLinks
from services.auth.service.outbox import TupleOutbox
from services.contracts.auth.authorization import (
    AccessChange,
    BatchCheckRequest,
    BatchCheckResponse,
    CheckRequest,
    CheckResponse,
    ExpandRequest,
    ExpandResponse,
    ForgetObjectRequest,
    ListAccessChangesRequest,
    ListAccessChangesResponse,
    ListObjectsRequest,
    ListObjectsResponse,
    ListUsersRequest,
    ListUsersResponse,
    ReadChangesRequest,
    ReadChangesResponse,
    RelationTuple,
    WriteTuplesRequest,
)
from services.kit.access.cache import AccessChanges, AccessCheck


@dataclass(frozen=True, slots=True)
class AuthorizationService:
    """What other apps ask of the tuples, and change in them."""

    relations: Relations
    feed: AccessFeed
    links: ShareLinks
    outbox: TupleOutbox

    async def check(self, request: CheckRequest) -> CheckResponse:
        [allowed] = await self.relations.check([request], fresh=request.fresh)
        return CheckResponse(allowed=allowed)

    async def batch_check(self, request: BatchCheckRequest) -> BatchCheckResponse:
        allowed = await self.relations.check(request.checks, fresh=request.fresh)
        return BatchCheckResponse(allowed=allowed)

    async def list_objects(self, request: ListObjectsRequest) -> ListObjectsResponse:
        objects = await self.relations.objects(
            request.subject, request.relation, request.type, fresh=request.fresh
        )
        return ListObjectsResponse(objects=objects)

    async def list_users(self, request: ListUsersRequest) -> ListUsersResponse:
        users = await self.relations.users(request.relation, request.object, fresh=request.fresh)
        return ListUsersResponse(subjects=users)

    async def expand(self, request: ExpandRequest) -> ExpandResponse:
        return ExpandResponse(root=await self.relations.expand(request.relation, request.object))

    async def write_tuples(self, request: WriteTuplesRequest) -> None:
        await self.relations.write(request.writes, request.deletes)

    async def forget_object(self, request: ForgetObjectRequest) -> None:
        """Delete every tuple of an object, and its share links with their holders; repeatable."""
        await self.outbox.deliver()  # a pending write would recreate tuples afterwards
        links = [link.link_id for link in await self.links.of_object(request.object)]
        for each in (request.object, *(f"share_link:{link_id}" for link_id in links)):
            await delete_tuples(self.relations, await self.relations.read(each))
        await self.links.forget(request.object)

    async def read_changes(self, request: ReadChangesRequest) -> ReadChangesResponse:
        return await self.relations.changes(request.type, request.limit, request.cursor)

    async def list_access_changes(
        self, request: ListAccessChangesRequest
    ) -> ListAccessChangesResponse:
        found = await self.feed.since(request.after)
        changes = [AccessChange(user_id=each.user_id, object=each.object) for each in found.changes]
        return ListAccessChangesResponse(position=found.position, changes=changes)


@dataclass(frozen=True, slots=True)
class LocalAccessSource:
    """`AccessSource` of auth itself, which needs no RPC."""

    relations: Relations
    feed: AccessFeed

    async def check(self, check: AccessCheck) -> bool:
        wanted = RelationTuple(
            subject=f"user:{check.user_id}", relation=check.relation, object=check.object
        )
        [allowed] = await self.relations.check([wanted], fresh=True)
        return allowed

    async def changes(self, after: int | None) -> AccessChanges:
        return await self.feed.since(after)


async def delete_tuples(relations: Relations, tuples: Sequence[RelationTuple]) -> None:
    """Delete any number of tuples; repeatable."""
    for first in range(0, len(tuples), MAX_CHANGES):
        await relations.write([], tuples[first : first + MAX_CHANGES])
