"""`yocaso.auth.v1.AuthorizationService`: facts, for other apps; sharing, for users."""

import secrets
import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from services.auth.domain.keys import Digest, log_of
from services.auth.domain.sharing import (
    TOKEN_BYTES,
    TOKEN_PREFIX,
    StoredLink,
    direct_shares,
    owners,
    refuse_owner,
    refuse_past,
    role_facts,
    share_changes,
)
from services.auth.ports.feed import AccessFeed
from services.auth.ports.outbox import Outbox
from services.auth.ports.relations import Relations, make_untrue
from services.auth.ports.sharing import Sharing, SharingEvent
from services.contracts.auth.authorization import (
    AUTHORIZATION_SERVICE,
    OWNER,
    VIEWER,
    AccessChange,
    BatchCheckRequest,
    BatchCheckResponse,
    CheckRequest,
    CheckResponse,
    CreateShareLinkRequest,
    ExpandRequest,
    ExpandResponse,
    ForgetObjectRequest,
    ListAccessChangesRequest,
    ListAccessChangesResponse,
    ListObjectsRequest,
    ListObjectsResponse,
    ListSharedWithMeRequest,
    ListSharesResponse,
    ListUsersRequest,
    ListUsersResponse,
    OpenShareLinkRequest,
    OpenShareLinkResponse,
    ReadChangesRequest,
    ReadChangesResponse,
    RevokeShareLinkRequest,
    Share,
    SharedObjectRequest,
    ShareLink,
    ShareRequest,
    UnshareRequest,
    WriteTuplesRequest,
)
from services.kit.access.authorization import Caller, CallingApp, Permitted
from services.kit.access.identity import CallerIdentity
from services.kit.clock import Clock
from services.kit.contract import Empty
from services.kit.errors import not_found
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(AUTHORIZATION_SERVICE)

OwnerOfObject = Annotated[CallerIdentity, Depends(Permitted(OWNER, "object"))]
"""Whoever shares a thing owns it."""


@dataclass(frozen=True, slots=True)
class Access:
    """Facts, and what users do with them."""

    relations: Relations
    feed: AccessFeed
    outbox: Outbox
    sharing: Sharing
    digest: Digest
    clock: Clock

    async def forget(self, target: str) -> None:
        """Remove every fact about an object, and its links with those who hold them; repeatable."""
        await self.outbox.deliver()  # or what waits there would come back after
        links = [link.link_id for link in await self.sharing.links(target)]
        for each in (target, *(f"share_link:{link_id}" for link_id in links)):
            await make_untrue(self.relations, await self.relations.read(each))
        await self.sharing.forget(target)

    async def share(self, request: ShareRequest, caller: CallerIdentity) -> Share:
        """Give a role directly, in place of the one that the subject had."""
        known = owners(await self.relations.read(request.object))
        refuse_owner(request.subject, known, caller.user_id)
        writes, deletes = share_changes(request.object, request.subject, request.role)
        details = {"change": "shared", "subject": request.subject, "role": request.role.value}
        await self.sharing.change(_event(caller, request.object, details), writes, deletes)
        return Share(subject=request.subject, role=request.role)

    async def unshare(self, request: UnshareRequest, caller: CallerIdentity) -> None:
        """Take every direct role away."""
        details = {"change": "unshared", "subject": request.subject}
        event = _event(caller, request.object, details)
        await self.sharing.change(event, [], role_facts(request.object, request.subject))

    async def create_link(
        self, request: CreateShareLinkRequest, caller: CallerIdentity
    ) -> ShareLink:
        """Make a link; its token is not kept."""
        now = self.clock()
        refuse_past(request.expires_at, now)
        link = StoredLink(
            link_id=f"link_{uuid.uuid4().hex}",
            object=request.object,
            role=request.role,
            created_by=caller.user_id,
            created_at=now,
            expires_at=request.expires_at,
        )
        token = TOKEN_PREFIX + secrets.token_hex(TOKEN_BYTES)
        details = {"change": "link created", "link": link.link_id, "role": link.role.value}
        event = _event(caller, request.object, details)
        await self.sharing.create(event, link, self.digest(token))
        return link.shown(token)

    async def revoke_link(self, request: RevokeShareLinkRequest, caller: CallerIdentity) -> None:
        """End a link of this object."""
        details = {"change": "link revoked", "link": request.link_id}
        event = _event(caller, request.object, details)
        if not await self.sharing.end(event, request.link_id, self.clock()):
            raise not_found("link")

    async def open_link(self, token: str, caller: CallerIdentity) -> StoredLink:
        """Make the caller one of those who hold the link; what does not work is as if it never was."""
        link = await self.sharing.find(self.digest(token))
        if link is None or not link.works_at(self.clock()):
            raise not_found("link")
        details = {"change": "link opened", "link": link.link_id, "role": link.role.value}
        event = _event(caller, link.object, details, owner=link.created_by)
        await self.sharing.change(event, [link.held_by(caller.user_id)], [])
        return link

    async def shared_with(self, user_id: str, kind: str) -> list[str]:
        """What a user sees and does not own."""
        subject = f"user:{user_id}"
        seen = await self.relations.objects(subject, VIEWER, kind, fresh=True)
        own = set(await self.relations.objects(subject, OWNER, kind, fresh=True))
        return [each for each in seen if each not in own]


With = Annotated[Access, Depends(provided(Access))]


@rpc.method
async def check(request: CheckRequest, _: CallingApp, using: With) -> CheckResponse:
    """Say whether a fact follows."""
    [allowed] = await using.relations.check([request], fresh=request.fresh)
    return CheckResponse(allowed=allowed)


@rpc.method
async def batch_check(request: BatchCheckRequest, _: CallingApp, using: With) -> BatchCheckResponse:
    """Answer several checks."""
    allowed = await using.relations.check(request.checks, fresh=request.fresh)
    return BatchCheckResponse(allowed=allowed)


@rpc.method
async def list_objects(
    request: ListObjectsRequest, _: CallingApp, using: With
) -> ListObjectsResponse:
    """List a subject's objects."""
    objects = await using.relations.objects(
        request.subject, request.relation, request.type, fresh=request.fresh
    )
    return ListObjectsResponse(objects=objects)


@rpc.method
async def list_users(request: ListUsersRequest, _: CallingApp, using: With) -> ListUsersResponse:
    """List an object's users."""
    users = await using.relations.users(request.relation, request.object, fresh=request.fresh)
    return ListUsersResponse(subjects=users)


@rpc.method
async def expand(request: ExpandRequest, _: CallingApp, using: With) -> ExpandResponse:
    """Explain a relation."""
    return ExpandResponse(root=await using.relations.expand(request.relation, request.object))


@rpc.method
async def write_tuples(request: WriteTuplesRequest, _: CallingApp, using: With) -> Empty:
    """Write and delete facts."""
    await using.relations.write(request.writes, request.deletes)
    return Empty()


@rpc.method
async def forget_object(request: ForgetObjectRequest, _: CallingApp, using: With) -> Empty:
    """Delete every fact about an object."""
    await using.forget(request.object)
    return Empty()


@rpc.method
async def read_changes(
    request: ReadChangesRequest, _: CallingApp, using: With
) -> ReadChangesResponse:
    """Read the history of facts."""
    return await using.relations.changes(request.type, request.limit, request.cursor)


@rpc.method
async def list_access_changes(
    request: ListAccessChangesRequest, _: CallingApp, using: With
) -> ListAccessChangesResponse:
    """List whose access was taken away since a position."""
    found = await using.feed.since(request.after)
    changes = [AccessChange(user_id=each.user_id, object=each.object) for each in found.changes]
    return ListAccessChangesResponse(position=found.position, changes=changes)


@rpc.method
async def share(request: ShareRequest, caller: OwnerOfObject, using: With) -> Share:
    """Share an object."""
    return await using.share(request, caller)


@rpc.method
async def unshare(request: UnshareRequest, caller: OwnerOfObject, using: With) -> Empty:
    """Stop sharing an object."""
    await using.unshare(request, caller)
    return Empty()


@rpc.method
async def list_shares(
    request: SharedObjectRequest, _: OwnerOfObject, using: With
) -> ListSharesResponse:
    """List who has an object."""
    shares = direct_shares(await using.relations.read(request.object))
    links = await using.sharing.links(request.object)
    now = using.clock()
    return ListSharesResponse(
        shares=shares, links=[link.shown() for link in links if link.works_at(now)]
    )


@rpc.method
async def create_share_link(
    request: CreateShareLinkRequest, caller: OwnerOfObject, using: With
) -> ShareLink:
    """Make a link that shares an object."""
    return await using.create_link(request, caller)


@rpc.method
async def revoke_share_link(
    request: RevokeShareLinkRequest, caller: OwnerOfObject, using: With
) -> Empty:
    """End a link and what it gave."""
    await using.revoke_link(request, caller)
    return Empty()


@rpc.method
async def open_share_link(
    request: OpenShareLinkRequest, caller: Caller, using: With
) -> OpenShareLinkResponse:
    """Open a link."""
    link = await using.open_link(request.token, caller)
    return OpenShareLinkResponse(object=link.object, role=link.role)


@rpc.method
async def list_shared_with_me(
    request: ListSharedWithMeRequest, caller: Caller, using: With
) -> ListObjectsResponse:
    """List what others share with the caller."""
    return ListObjectsResponse(objects=await using.shared_with(caller.user_id, request.type))


def _event(
    caller: CallerIdentity, target: str, details: dict[str, str], owner: str | None = None
) -> SharingEvent:
    return SharingEvent(
        actor=caller.user_id,
        owner=log_of(owner or caller.user_id),
        object=target,
        key_id=caller.key_id,
        details=details,
    )
