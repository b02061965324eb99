"""One call to OpenFGA: bounded, tried again where only the connection was stale, and never a yes when it fails."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import aiohttp
import structlog
from openfga_sdk import ClientConfiguration, OpenFgaClient
from openfga_sdk.configuration import RetryParams
from openfga_sdk.credentials import CredentialConfiguration, Credentials
from openfga_sdk.exceptions import NotFoundException, OpenApiException, ValidationException

from services.kit.dapr.sidecar import unavailable
from services.kit.errors import ErrorCode, RpcError

CALL_SECONDS: Final = 2.0
REQUEST_MILLISECONDS: Final = 1500
LOST: Final = frozenset(
    {"authorization_model_not_found", "latest_authorization_model_not_found", "store_id_not_found"}
)
"""The server has another database than it had: store and model are looked for again."""

ResultT = TypeVar("ResultT")
log = structlog.get_logger()


class StoreLost(Exception):
    """The store or the model that was used is no longer there."""


def client_of(url: str, token: str) -> OpenFgaClient:
    """A client that leaves it to its caller to try again."""
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


async def reaching(call: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """The answer of a call that may be repeated.

    Raises:
        StoreLost: see there.
        RpcError: UNAVAILABLE where there is none in time, INVALID_ARGUMENT for what the server refuses.
    """
    try:
        async with asyncio.timeout(CALL_SECONDS):
            try:
                return await call()
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                return await call()  # a kept connection, closed by a server that has restarted
    except NotFoundException as error:
        raise StoreLost from error
    except ValidationException as error:
        if code_of(error) in LOST:
            raise StoreLost from error
        raise RpcError(
            ErrorCode.INVALID_ARGUMENT, "The authorization model does not know this."
        ) from error
    except (OpenApiException, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        log.warning("openfga.unreachable", error=type(error).__name__)
        raise unavailable(error) from error


def code_of(error: Any) -> str:
    """What the server calls a failure."""
    return str(getattr(error.parsed_exception, "code", "") or "")
