"""`yocaso.auth.v1.AccountService`."""

import secrets
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from services.auth.domain.keys import log_of
from services.auth.ports.audit import AuditLog
from services.auth.ports.deletions import Credentials, Deletions
from services.contracts.auth.accounts import (
    ACCOUNT_SERVICE,
    DELETE_ACCOUNT_WORKFLOW,
    AccountDeletion,
    DeleteAccountInput,
    GetAccountDeletionRequest,
)
from services.contracts.auth.audit import AuditAction
from services.kit.access.authorization import Caller, Public
from services.kit.access.identity import CallerIdentity
from services.kit.contract import Empty
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.failpoints import failpoint
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter
from services.kit.references import Workflows

rpc = RpcRouter(ACCOUNT_SERVICE)


@dataclass(frozen=True, slots=True)
class Eraser:
    """Begins erasures, and leaves none behind."""

    deletions: Deletions
    credentials: Credentials
    workflows: Workflows
    audit: AuditLog

    async def begin(self, caller: CallerIdentity) -> AccountDeletion:
        """Write the receipt, then lock the door, then start; `drive` goes on where this stops."""
        user_id = caller.user_id
        deletion_id = f"deletion_{secrets.token_hex(16)}"
        deletion = await self.deletions.begin(user_id, deletion_id)
        await failpoint("erasure.after_receipt")
        await self.audit.record(AuditAction.ACCOUNT_DELETED, actor=user_id, owner=log_of(user_id))
        await self._drive(DeleteAccountInput(user_id=user_id, deletion_id=deletion.deletion_id))
        return deletion

    async def drive(self) -> None:
        """See to every erasure that is not complete: its workflow may never have been started."""
        for account in await self.deletions.unfinished():
            await self._drive(account)
        for deletion_id in await self.deletions.finished():
            await self.workflows.purge([deletion_id])
            await self.deletions.forget_workflow(deletion_id)

    async def _drive(self, account: DeleteAccountInput) -> None:
        await self.credentials.revoke_user(account.user_id)
        await failpoint("erasure.after_revoke")
        await self.workflows.start(DELETE_ACCOUNT_WORKFLOW, account.deletion_id, account)


With = Annotated[Eraser, Depends(provided(Eraser))]


@rpc.method
async def delete_account(request: Empty, caller: Caller, using: With) -> AccountDeletion:
    """Begin; the reply is the receipt as it stands."""
    del request
    if caller.key_id is not None:
        raise RpcError(ErrorCode.PERMISSION_DENIED, "An API key cannot end an account.")
    return await using.begin(caller)


@rpc.method
async def get_account_deletion(
    request: GetAccountDeletionRequest, _: Public, using: With
) -> AccountDeletion:
    """The receipt."""
    deletion = await using.deletions.read(request.deletion_id)
    if deletion is None:
        raise not_found("deletion")
    return deletion
