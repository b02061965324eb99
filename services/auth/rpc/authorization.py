"""`yocaso.auth.v1.AuthorizationService`."""

from services.contracts.authorization import (
    AUTHORIZATION_SERVICE,
    BatchCheckRequest,
    BatchCheckResponse,
    CheckRequest,
    CheckResponse,
    CreateShareLinkRequest,
    ExpandRequest,
    ExpandResponse,
    ForgetObjectRequest,
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
from services.kit.authorization import Caller, CallingApp
from services.kit.contract import Empty
from services.kit.errors import ErrorCode, RpcError
from services.kit.rpc import RpcRouter

rpc = RpcRouter(AUTHORIZATION_SERVICE)


@rpc.method
async def check(request: CheckRequest, _: CallingApp) -> CheckResponse:
    """Say whether a fact follows."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def batch_check(request: BatchCheckRequest, _: CallingApp) -> BatchCheckResponse:
    """Answer several checks."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def list_objects(request: ListObjectsRequest, _: CallingApp) -> ListObjectsResponse:
    """List a subject's objects."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def list_users(request: ListUsersRequest, _: CallingApp) -> ListUsersResponse:
    """List an object's users."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def expand(request: ExpandRequest, _: CallingApp) -> ExpandResponse:
    """Explain a relation."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def write_tuples(request: WriteTuplesRequest, _: CallingApp) -> Empty:
    """Write and delete facts."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def forget_object(request: ForgetObjectRequest, _: CallingApp) -> Empty:
    """Delete every fact about an object."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def read_changes(request: ReadChangesRequest, _: CallingApp) -> ReadChangesResponse:
    """Read the history of facts."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def share(request: ShareRequest, _: Caller) -> Share:
    """Share an object."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def unshare(request: UnshareRequest, _: Caller) -> Empty:
    """Stop sharing an object."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def list_shares(request: SharedObjectRequest, _: Caller) -> ListSharesResponse:
    """List who has an object."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def create_share_link(request: CreateShareLinkRequest, _: Caller) -> ShareLink:
    """Make a link that shares an object."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def revoke_share_link(request: RevokeShareLinkRequest, _: Caller) -> Empty:
    """End a link and what it gave."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def open_share_link(request: OpenShareLinkRequest, _: Caller) -> OpenShareLinkResponse:
    """Open a link."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def list_shared_with_me(request: ListSharedWithMeRequest, _: Caller) -> ListObjectsResponse:
    """List what others share with the caller."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")
