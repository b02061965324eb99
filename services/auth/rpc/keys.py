"""`yocaso.auth.v1.ApiKeyService`."""

from typing import Annotated

from fastapi import Depends

from services.auth.rpc.access import Control, KeyManager, refuse_api_keys, require_admin
from services.auth.service.keys import ApiKeyService
from services.contracts.auth.keys import (
    API_KEY_SERVICE,
    ApiKey,
    ApiKeyRequest,
    ApiKeySecret,
    ChargeApiKeyRequest,
    CreateApiKeyRequest,
    ListApiKeysRequest,
    ListApiKeysResponse,
    RotateApiKeyRequest,
    UpdateApiKeyRequest,
    VerifyApiKeyRequest,
    VerifyApiKeyResponse,
)
from services.kit.access.authorization import Caller, CallingApp
from services.kit.contract import Empty
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(API_KEY_SERVICE)

Deps = Annotated[ApiKeyService, Depends(provided(ApiKeyService))]


@rpc.method
async def create_api_key(
    request: CreateApiKeyRequest, caller: Caller, control: Control, deps: Deps
) -> ApiKeySecret:
    refuse_api_keys(caller)
    await require_admin(control, caller, request.organization_id)
    return await deps.create(request, caller)


@rpc.method
async def list_api_keys(
    request: ListApiKeysRequest, caller: Caller, control: Control, deps: Deps
) -> ListApiKeysResponse:
    await require_admin(control, caller, request.organization_id)
    return await deps.page(request, caller)


@rpc.method
async def get_api_key(request: ApiKeyRequest, _: KeyManager, deps: Deps) -> ApiKey:
    return await deps.get(request)


@rpc.method
async def update_api_key(request: UpdateApiKeyRequest, caller: KeyManager, deps: Deps) -> ApiKey:
    refuse_api_keys(caller)
    return await deps.update(request, caller)


@rpc.method
async def rotate_api_key(
    request: RotateApiKeyRequest, caller: KeyManager, deps: Deps
) -> ApiKeySecret:
    refuse_api_keys(caller)
    return await deps.rotate(request, caller)


@rpc.method
async def revoke_api_key(request: ApiKeyRequest, caller: KeyManager, deps: Deps) -> ApiKey:
    return await deps.revoke(request, caller)


@rpc.method
async def verify_api_key(
    request: VerifyApiKeyRequest, _: CallingApp, deps: Deps
) -> VerifyApiKeyResponse:
    return await deps.verify(request.secret, request.scope, request.cost)


@rpc.method
async def charge_api_key(request: ChargeApiKeyRequest, _: CallingApp, deps: Deps) -> Empty:
    await deps.charge(request)
    return Empty()
