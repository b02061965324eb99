"""Replies of RPC methods as this app's values: response messages and errors."""

from http import HTTPStatus

import pydantic
import structlog

from services.kit.contract import AnyMethod, Req, Res, RpcMethod
from services.kit.errors import ErrorBody, ErrorCode, RpcError, internal_error, unavailable

log = structlog.get_logger()


def parse_reply(method: RpcMethod[Req, Res], body: bytes | str) -> Res:
    """The response message; fields that a newer release has added are ignored.

    Raises:
        RpcError: UNAVAILABLE if there is none: daprd answers an empty 200 if the app goes away; INTERNAL if it is invalid.
    """
    if not body:
        raise unavailable()
    try:
        return method.response.model_validate_json(body, extra="ignore")
    except pydantic.ValidationError as error:
        fields = [".".join(map(str, problem["loc"])) for problem in error.errors()]
        log.error("rpc.invalid_reply", method=method.path, fields=fields[:10])
        raise internal_error() from None


def error_of(method: AnyMethod, body: bytes | str, status: int = 200) -> RpcError:
    """The error that a method answered; UNAVAILABLE for an error of a sidecar, or if this app may not call."""
    try:
        error = RpcError.from_status(ErrorBody.model_validate_json(body, extra="ignore").error)
    except pydantic.ValidationError:
        if status == HTTPStatus.FORBIDDEN:  # by the sidecar's access policy
            log.error("rpc.refused", method=method.path)
        return unavailable()
    if error.code is ErrorCode.UNAUTHENTICATED and not method.public:
        # The platform's fault, not the user's: this app's sidecar or manifest is not set up to call the method.
        log.error("rpc.refused", method=method.path)
        return unavailable()
    return error
