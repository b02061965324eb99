"""`yocaso.auth.v1.AccountService`."""

from typing import Annotated

from fastapi import Depends

from services.auth.service.accounts import AccountService
from services.contracts.auth.accounts import (
    ACCOUNT_SERVICE,
    AccountDeletion,
    GetAccountDeletionRequest,
)
from services.kit.access.authorization import Caller, Public
from services.kit.contract import Empty
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(ACCOUNT_SERVICE)

Deps = Annotated[AccountService, Depends(provided(AccountService))]


@rpc.method
async def delete_account(request: Empty, caller: Caller, deps: Deps) -> AccountDeletion:
    del request
    return await deps.begin_deletion(caller)


@rpc.method
async def get_account_deletion(
    request: GetAccountDeletionRequest, _: Public, deps: Deps
) -> AccountDeletion:
    return await deps.get_deletion(request)
