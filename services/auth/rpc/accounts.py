"""`yocaso.auth.v1.AccountService`."""

from services.contracts.accounts import ACCOUNT_SERVICE, AccountDeletion, GetAccountDeletionRequest
from services.kit.authorization import Caller, Public
from services.kit.contract import Empty
from services.kit.errors import ErrorCode, RpcError
from services.kit.rpc import RpcRouter

rpc = RpcRouter(ACCOUNT_SERVICE)


@rpc.method
async def delete_account(request: Empty, _: Caller) -> AccountDeletion:
    """Erase the caller's account and all that belongs to it; cannot be undone."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def get_account_deletion(request: GetAccountDeletionRequest, _: Public) -> AccountDeletion:
    """Read the receipt of a deletion."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")
