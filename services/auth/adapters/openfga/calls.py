"""Calls to OpenFGA: bounded in time, and repeated once on a stale connection."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import aiohttp
import structlog
from openfga_sdk import ClientConfiguration, OpenFgaClient
from openfga_sdk.configuration import RetryParams
from openfga_sdk.credentials import CredentialConfiguration, Credentials
from openfga_sdk.exceptions import NotFoundException, OpenApiException, ValidationException

from services.kit.errors import ErrorCode, RpcError, unavailable

CALL_SECONDS: Final = 2.0
REQUEST_MILLISECONDS: Final = 1500
MISSING: Final = frozenset(
    {"authorization_model_not_found", "latest_authorization_model_not_found", "store_id_not_found"}
)
"""Error codes of a server whose database was replaced."""

ResultT = TypeVar("ResultT")
log = structlog.get_logger()


class StoreMissing(Exception):
    """The pinned store or model does not exist."""


def client_of(url: str, token: str) -> OpenFgaClient:
    """A client without retries of its own."""
    credentials = Credentials(
        method="api_token", configuration=CredentialConfiguration(api_token=token)
    )
    configuration = ClientConfiguration(
        api_url=url.rstrip("/"),
        credentials=credentials,
        retry_params=RetryParams(max_retry=0),
        timeout_millisec=REQUEST_MILLISECONDS,
    )
    return OpenFgaClient(configuration)


async def call_openfga(call: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Make a call that may be repeated.

    Raises:
        StoreMissing: the pinned store or model does not exist.
        RpcError: UNAVAILABLE without an answer in time, INVALID_ARGUMENT for a refused request.
    """
    try:
        async with asyncio.timeout(CALL_SECONDS):
            try:
                return await call()
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                return await call()  # a pooled connection of a server that has restarted
    except NotFoundException as error:
        raise StoreMissing from error
    except ValidationException as error:
        if code_of(error) in MISSING:
            raise StoreMissing from error
        raise RpcError(ErrorCode.INVALID_ARGUMENT, "Not in the authorization model.") from error
    except (OpenApiException, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        log.warning("openfga.unreachable", error=type(error).__name__)
        raise unavailable() from error


def code_of(error: Any) -> str:
    """OpenFGA's error code."""
    return str(getattr(error.parsed_exception, "code", "") or "")
