"""`yocaso.auth.v1.ApiKeyService`."""

from services.contracts.keys import (
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
from services.kit.authorization import Caller, CallingApp
from services.kit.contract import Empty
from services.kit.errors import ErrorCode, RpcError
from services.kit.rpc import RpcRouter

rpc = RpcRouter(API_KEY_SERVICE)


@rpc.method
async def create_api_key(request: CreateApiKeyRequest, _: Caller) -> ApiKeySecret:
    """Make a key; its secret is shown once."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def list_api_keys(request: ListApiKeysRequest, _: Caller) -> ListApiKeysResponse:
    """List keys."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def get_api_key(request: ApiKeyRequest, _: Caller) -> ApiKey:
    """Read a key."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def update_api_key(request: UpdateApiKeyRequest, _: Caller) -> ApiKey:
    """Change a key's name, scopes, expiry or limits."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def rotate_api_key(request: RotateApiKeyRequest, _: Caller) -> ApiKeySecret:
    """Give a key a new secret; the old one works for a while."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def revoke_api_key(request: ApiKeyRequest, _: Caller) -> ApiKey:
    """End a key, everywhere within 5 s."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def verify_api_key(request: VerifyApiKeyRequest, _: CallingApp) -> VerifyApiKeyResponse:
    """Say whether a secret is good, whose it is, and what is left of its limits."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def charge_api_key(request: ChargeApiKeyRequest, _: CallingApp) -> Empty:
    """Book a cost on a key."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")
