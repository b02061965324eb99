"""Authorization of auth's routes, beyond what kit has."""

from typing import Annotated

from fastapi import Depends, Request

from services.contracts.auth.authorization import ADMIN, OWNER
from services.kit.access.authorization import AccessControl, Permitted, access_control
from services.kit.access.identity import CallerIdentity
from services.kit.errors import ErrorCode, RpcError


async def _control(request: Request) -> AccessControl:
    return access_control(request)


Control = Annotated[AccessControl, Depends(_control)]
KeyManager = Annotated[CallerIdentity, Depends(Permitted("manager", "key_id", kind="api_key"))]
ObjectOwner = Annotated[CallerIdentity, Depends(Permitted(OWNER, "object"))]


async def require_admin(
    control: AccessControl, caller: CallerIdentity, organization_id: str | None
) -> None:
    """Require an admin of the organization, if one is named."""
    if organization_id is not None:
        target = f"organization:{organization_id}"
        await control.require(caller, ADMIN, target, visible_to=ADMIN)


def refuse_api_keys(caller: CallerIdentity) -> None:
    """PERMISSION_DENIED for API keys, which could extend their own rights."""
    if caller.key_id is not None:
        raise RpcError(ErrorCode.PERMISSION_DENIED, "An API key cannot create or change keys.")
