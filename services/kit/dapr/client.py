"""RPC client: calls other apps' methods through the sidecar, and raises their errors unchanged."""

import os
from typing import Final

import aiohttp
import pydantic

from services.kit.contract import Req, Res, RpcMethod
from services.kit.errors import ErrorBody, ErrorCode, RpcError, unavailable
from services.kit.telemetry.tracing import current_traceparent

TIMEOUT: Final = aiohttp.ClientTimeout(total=10, sock_connect=2)


class RpcClient:
    """Pooled HTTP client of this app's sidecar; over gRPC, daprd truncates error bodies."""

    def __init__(self) -> None:
        self._base = f"http://127.0.0.1:{os.environ.get('DAPR_HTTP_PORT', '3500')}/v1.0/invoke"
        token = os.environ.get("DAPR_API_TOKEN")
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["dapr-api-token"] = token
        self._session: aiohttp.ClientSession | None = None

    async def call(self, method: RpcMethod[Req, Res], request: Req) -> Res:
        """Call a method.

        Raises:
            RpcError: the method's error; UNAVAILABLE, with unknown outcome, if the app cannot be reached.
        """
        url = f"{self._base}/{method.service.app_id}/method{method.path}"
        trace = current_traceparent()
        headers = {**self._headers, "traceparent": trace} if trace else self._headers
        try:
            async with self._open().post(url, data=request.to_json(), headers=headers) as reply:
                body = await reply.read()
        except (TimeoutError, aiohttp.ClientError) as error:
            raise unavailable() from error
        if reply.status == 200:
            return method.response.model_validate_json(body)
        raise _error_of(body)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=256, keepalive_timeout=30)
            )
        return self._session


def _error_of(body: bytes) -> RpcError:
    try:
        error = RpcError.from_status(ErrorBody.model_validate_json(body).error)
    except pydantic.ValidationError:  # an error of the sidecar, not of the app
        return unavailable()
    if error.code is ErrorCode.UNAUTHENTICATED:  # the platform's fault, not the user's
        return unavailable()
    return error
