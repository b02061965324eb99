"""`yocaso.auth.v1.AuthorizationService`: tuples for other apps, sharing for users."""

from typing import Annotated

from fastapi import Depends

from services.auth.rpc.access import ObjectOwner
from services.auth.service.authorization import AuthorizationService
from services.auth.service.sharing import SharingService
from services.contracts.auth.authorization import (
    AUTHORIZATION_SERVICE,
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
from services.kit.access.authorization import Caller, CallingApp
from services.kit.contract import Empty
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(AUTHORIZATION_SERVICE)

Deps = Annotated[AuthorizationService, Depends(provided(AuthorizationService))]
Sharing = Annotated[SharingService, Depends(provided(SharingService))]


@rpc.method
async def check(request: CheckRequest, _: CallingApp, deps: Deps) -> CheckResponse:
    return await deps.check(request)


@rpc.method
async def batch_check(request: BatchCheckRequest, _: CallingApp, deps: Deps) -> BatchCheckResponse:
    return await deps.batch_check(request)


@rpc.method
async def list_objects(
    request: ListObjectsRequest, _: CallingApp, deps: Deps
) -> ListObjectsResponse:
    return await deps.list_objects(request)


@rpc.method
async def list_users(request: ListUsersRequest, _: CallingApp, deps: Deps) -> ListUsersResponse:
    return await deps.list_users(request)


@rpc.method
async def expand(request: ExpandRequest, _: CallingApp, deps: Deps) -> ExpandResponse:
    return await deps.expand(request)


@rpc.method
async def write_tuples(request: WriteTuplesRequest, _: CallingApp, deps: Deps) -> Empty:
    await deps.write_tuples(request)
    return Empty()


@rpc.method
async def forget_object(request: ForgetObjectRequest, _: CallingApp, deps: Deps) -> Empty:
    await deps.forget_object(request)
    return Empty()


@rpc.method
async def read_changes(
    request: ReadChangesRequest, _: CallingApp, deps: Deps
) -> ReadChangesResponse:
    return await deps.read_changes(request)


@rpc.method
async def list_access_changes(
    request: ListAccessChangesRequest, _: CallingApp, deps: Deps
) -> ListAccessChangesResponse:
    return await deps.list_access_changes(request)


@rpc.method
async def share(request: ShareRequest, caller: ObjectOwner, deps: Sharing) -> Share:
    return await deps.share(request, caller)


@rpc.method
async def unshare(request: UnshareRequest, caller: ObjectOwner, deps: Sharing) -> Empty:
    await deps.unshare(request, caller)
    return Empty()


@rpc.method
async def list_shares(
    request: SharedObjectRequest, _: ObjectOwner, deps: Sharing
) -> ListSharesResponse:
    return await deps.list_shares(request)


@rpc.method
async def create_share_link(
    request: CreateShareLinkRequest, caller: ObjectOwner, deps: Sharing
) -> ShareLink:
    return await deps.create_link(request, caller)


@rpc.method
async def revoke_share_link(
    request: RevokeShareLinkRequest, caller: ObjectOwner, deps: Sharing
) -> Empty:
    await deps.revoke_link(request, caller)
    return Empty()


@rpc.method
async def open_share_link(
    request: OpenShareLinkRequest, caller: Caller, deps: Sharing
) -> OpenShareLinkResponse:
    return await deps.open_link(request, caller)


@rpc.method
async def list_shared_with_me(
    request: ListSharedWithMeRequest, caller: Caller, deps: Sharing
) -> ListObjectsResponse:
    return await deps.shared_with(request, caller)
