"""Deletion of accounts: receipts, workflows, and auth's own user data."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.auth.domain.keys import audit_log_of
from services.auth.ports.accounts import DeletionReceipts, UserData, UserRecords
from services.auth.ports.audit import AuditLog
from services.auth.ports.relations import Relations
from services.auth.ports.tokens import Revocations
from services.auth.service.authorization import delete_tuples
from services.auth.service.outbox import TupleOutbox
from services.contracts.auth.accounts import (
    DELETE_ACCOUNT_WORKFLOW,
    AccountDeletion,
    DeleteAccountInput,
    GetAccountDeletionRequest,
    RecordErasureInput,
)
from services.contracts.auth.audit import AuditAction
from services.contracts.erasure import ErasedUser, EraseUserInput
from services.contracts.llm.topics import ConversationDeleted
from services.kit.access.identity import CallerIdentity
from services.kit.dapr.pubsub.inbox import Inbox
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.failpoints import failpoint
from services.kit.references import Workflows

if TYPE_CHECKING:
    from services.kit.storage.db import Transaction

PSEUDONYM: Final = "erased"
"""Replaces an erased user in the audit logs of others."""


@dataclass(frozen=True, slots=True)
class AccountService:
    """Begins deletions, and recovers those whose process died."""

    receipts: DeletionReceipts
    records: UserRecords
    revocations: Revocations
    workflows: Workflows
    audit: AuditLog

    async def begin_deletion(self, caller: CallerIdentity) -> AccountDeletion:
        """Write the receipt first: `recover` continues from it."""
        if caller.key_id is not None:
            raise RpcError(ErrorCode.PERMISSION_DENIED, "An API key cannot delete an account.")
        user_id = caller.user_id
        deletion_id = f"deletion_{secrets.token_hex(16)}"
        deletion = await self.receipts.begin(user_id, deletion_id)
        await failpoint("erasure.after_receipt")
        owner = audit_log_of(user_id)
        await self.audit.record(
            AuditAction.ACCOUNT_DELETED, actor=user_id, owner=owner, details=caller.audit_details
        )
        await self._start(DeleteAccountInput(user_id=user_id, deletion_id=deletion.deletion_id))
        return deletion

    async def get_deletion(self, request: GetAccountDeletionRequest) -> AccountDeletion:
        return _required(await self.receipts.read(request.deletion_id))

    async def recover(self) -> None:
        """Start the workflow of every unfinished deletion, and purge those of finished ones."""
        for account in await self.receipts.unfinished():
            await self._start(account)
        for deletion_id in await self.receipts.finished():
            await self.workflows.purge([deletion_id])
            await self.receipts.forget_workflow(deletion_id)

    async def _start(self, account: DeleteAccountInput) -> None:
        """Revoke all credentials, then start the workflow; repeatable."""
        await self.revocations.revoke("sub", account.user_id)
        await self.records.revoke_keys(account.user_id)
        await failpoint("erasure.after_revoke")
        await self.workflows.start(DELETE_ACCOUNT_WORKFLOW, account.deletion_id, account)

    async def record_conversation_deletion(
        self, deleted: ConversationDeleted, transaction: "Transaction"
    ) -> None:
        """Add it to the owner's audit log, unless the owner's account was deleted since, with that log."""
        if await self.receipts.covers(transaction, deleted.user_id, deleted.deleted_at):
            return
        await self.audit.record(
            AuditAction.CONVERSATION_DELETED,
            actor=deleted.user_id,
            owner=audit_log_of(deleted.user_id),
            object=f"conversation:{deleted.conversation_id}",
            transaction=transaction,
        )


@dataclass(frozen=True, slots=True)
class UserErasure:
    """The activities `EraseUser` and `RecordErasure`; repeatable."""

    receipts: DeletionReceipts
    data: Sequence[UserData]

    async def erase(self, request: EraseUserInput) -> ErasedUser:
        """Count the user's data, or erase it in order."""
        if request.count_only:
            found: dict[str, int] = {}
            for each in self.data:
                found |= await each.count(request.user_id)
            return ErasedUser(done=True, found=found)
        for each in self.data:
            await each.erase(request.user_id)
            await failpoint("erasure.after_part")
        return ErasedUser(done=True)

    async def record(self, request: RecordErasureInput) -> AccountDeletion:
        """Add a part to the receipt, or complete it."""
        if request.app is None:
            return _required(await self.receipts.complete(request.deletion_id))
        return _required(
            await self.receipts.add_part(request.deletion_id, request.app, request.removed)
        )


@dataclass(frozen=True, slots=True)
class UserRows:
    """`UserData` in Postgres, with the tuples of the user's API keys."""

    records: UserRecords
    relations: Relations
    outbox: TupleOutbox

    async def count(self, user_id: str) -> dict[str, int]:
        return await self.records.count(user_id, audit_log_of(user_id))

    async def erase(self, user_id: str) -> None:
        """Erase them. The revocation of the user's tokens stays until the last has expired."""
        await self.outbox.deliver()  # a pending write would recreate tuples afterwards
        for key_id in await self.records.key_ids(user_id):
            await delete_tuples(self.relations, await self.relations.read(f"api_key:{key_id}"))
            await self.records.erase_key(key_id)
        await self.records.erase(user_id, audit_log_of(user_id), PSEUDONYM)


@dataclass(frozen=True, slots=True)
class UserTuples:
    """`UserData` in OpenFGA: the roles that others gave the user."""

    relations: Relations

    async def count(self, user_id: str) -> dict[str, int]:
        return {"facts": len(await self.relations.read_subject(f"user:{user_id}"))}

    async def erase(self, user_id: str) -> None:
        tuples = await self.relations.read_subject(f"user:{user_id}")
        await delete_tuples(self.relations, tuples)


@dataclass(frozen=True, slots=True)
class UserDeadLetters:
    """`UserData` in the dead letters of auth's subscriptions."""

    inbox: Inbox

    async def count(self, user_id: str) -> dict[str, int]:
        return {"deadLetters": await self.inbox.count_dead_letters(user_id)}

    async def erase(self, user_id: str) -> None:
        await self.inbox.forget(user_id)


def _required(deletion: AccountDeletion | None) -> AccountDeletion:
    if deletion is None:
        raise not_found("deletion")
    return deletion
