"""Sharing of objects by their owners: direct roles and share links."""

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from services.auth.domain.keys import Digest, audit_log_of
from services.auth.domain.sharing import (
    TOKEN_BYTES,
    TOKEN_PREFIX,
    StoredLink,
    direct_shares,
    owners,
    refuse_owner,
    refuse_past,
    role_tuples,
    share_changes,
)
from services.auth.ports.audit import AuditLog
from services.auth.ports.relations import Relations, ShareLinks
from services.auth.service.outbox import TupleOutbox
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.authorization import (
    OWNER,
    VIEWER,
    CreateShareLinkRequest,
    ListObjectsResponse,
    ListSharedWithMeRequest,
    ListSharesResponse,
    OpenShareLinkRequest,
    OpenShareLinkResponse,
    RelationTuple,
    RevokeShareLinkRequest,
    Share,
    SharedObjectRequest,
    ShareLink,
    ShareRequest,
    UnshareRequest,
)
from services.kit.access.identity import CallerIdentity
from services.kit.clock import Clock
from services.kit.errors import not_found
from services.kit.storage.db import Database, Transaction


@dataclass(frozen=True, slots=True)
class SharingService:
    """A change, its audit event and its tuples are one transaction; the tuples are then delivered.

    A change that cannot be delivered at once is UNAVAILABLE, and delivered later.
    """

    database: Database
    relations: Relations
    links: ShareLinks
    outbox: TupleOutbox
    audit: AuditLog
    digest: Digest
    clock: Clock

    async def share(self, request: ShareRequest, caller: CallerIdentity) -> Share:
        """Give a role directly; it replaces the subject's previous one."""
        known = owners(await self.relations.read(request.object))
        refuse_owner(request.subject, known, caller.user_id)
        writes, deletes = share_changes(request.object, request.subject, request.role)
        details = {"change": "shared", "subject": request.subject, "role": request.role.value}
        await self._change(caller, request.object, details, writes, deletes)
        return Share(subject=request.subject, role=request.role)

    async def unshare(self, request: UnshareRequest, caller: CallerIdentity) -> None:
        """Remove every direct role of a subject."""
        details = {"change": "unshared", "subject": request.subject}
        deletes = role_tuples(request.object, request.subject)
        await self._change(caller, request.object, details, [], deletes)

    async def list_shares(self, request: SharedObjectRequest) -> ListSharesResponse:
        """The direct roles and the valid links of an object."""
        shares = direct_shares(await self.relations.read(request.object))
        links, now = await self.links.of_object(request.object), self.clock()
        valid = [link.view() for link in links if link.is_valid_at(now)]
        return ListSharesResponse(shares=shares, links=valid)

    async def create_link(
        self, request: CreateShareLinkRequest, caller: CallerIdentity
    ) -> ShareLink:
        """Create a link; only a hash of its token is stored. Its role may take effect a moment later."""
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
        async with self.database.transaction() as transaction:
            await self.links.add(transaction, link, self.digest(token))
            await self.outbox.add(transaction, writes=[link.grant])
            await self._record(transaction, caller, request.object, details)
        await self.outbox.relay()
        return link.view(token)

    async def revoke_link(self, request: RevokeShareLinkRequest, caller: CallerIdentity) -> None:
        """End a link and the access that it gave; a repeated call delivers what the first could not."""
        target, link_id = request.object, request.link_id
        details = {"change": "link revoked", "link": link_id}
        async with self.database.transaction() as transaction:
            ended = await self.links.end(transaction, target, link_id, self.clock())
            await self._delete_grants(transaction, ended)
            if ended:
                await self._record(transaction, caller, target, details)
        await self.outbox.deliver()
        if link_id not in {link.link_id for link in await self.links.of_object(target)}:
            raise not_found("link")

    async def open_link(
        self, request: OpenShareLinkRequest, caller: CallerIdentity
    ) -> OpenShareLinkResponse:
        """Make the caller a holder of the link. NOT_FOUND for invalid links, as for unknown ones."""
        link = await self.links.find(self.digest(request.token))
        if link is None or not link.is_valid_at(self.clock()):
            raise not_found("link")
        details = {"change": "link opened", "link": link.link_id, "role": link.role.value}
        writes = [link.holder_tuple(caller.user_id)]
        await self._change(caller, link.object, details, writes, [], owner=link.created_by)
        return OpenShareLinkResponse(object=link.object, role=link.role)

    async def shared_with(
        self, request: ListSharedWithMeRequest, caller: CallerIdentity
    ) -> ListObjectsResponse:
        """The objects that the caller can view and does not own."""
        subject = f"user:{caller.user_id}"
        visible = await self.relations.objects(subject, VIEWER, request.type, fresh=True)
        own = set(await self.relations.objects(subject, OWNER, request.type, fresh=True))
        return ListObjectsResponse(objects=[each for each in visible if each not in own])

    async def end_expired(self) -> None:
        """End expired links and the access that they gave."""
        async with self.database.transaction() as transaction:
            ended = await self.links.end_expired(transaction, self.clock())
            await self._delete_grants(transaction, ended)
        if ended:
            await self.outbox.relay()

    async def _change(
        self,
        caller: CallerIdentity,
        target: str,
        details: dict[str, str],
        writes: Sequence[RelationTuple],
        deletes: Sequence[RelationTuple],
        owner: str | None = None,
    ) -> None:
        async with self.database.transaction() as transaction:
            await self.outbox.add(transaction, writes, deletes)
            await self._record(transaction, caller, target, details, owner)
        await self.outbox.deliver()

    async def _delete_grants(self, transaction: Transaction, ended: Sequence[StoredLink]) -> None:
        for link in ended:
            await self.outbox.add(transaction, deletes=[link.grant])

    async def _record(
        self,
        transaction: Transaction,
        caller: CallerIdentity,
        target: str,
        details: dict[str, str],
        owner: str | None = None,
    ) -> None:
        await self.audit.record(
            AuditAction.SHARING_CHANGED,
            actor=caller.user_id,
            owner=audit_log_of(owner or caller.user_id),
            object=target,
            key_id=caller.key_id,
            details={**details, **caller.audit_details},
            transaction=transaction,
        )
