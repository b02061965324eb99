"""Firebase's users by `firebase-admin`, whose calls block: they run in threads, each with a timeout."""

import asyncio
import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import structlog

from services.auth.domain.firebase import FirebaseAccount
from services.auth.settings import FirebaseSettings
from services.kit.clock import Clock, utc_now
from services.kit.errors import ErrorCode, RpcError

T = TypeVar("T")

THREADS: Final = 8
HTTP_SECONDS: Final = 3.0
CALL_SECONDS: Final = 4.0
"""Shorter than the least AUTH_FIREBASE_REVOCATION_SECONDS: a late look-up must not count as recent."""
NOT_FOUND: Final = "USER_NOT_FOUND"
INVALID: Final = "INVALID_ARGUMENT"

log = structlog.get_logger()


class _Refused(Exception):
    """Firebase refused the call; `code` is its error code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _Unreachable(Exception):
    """Firebase or Google's token endpoint did not answer; the text is the error type."""


@dataclass(frozen=True, slots=True)
class Admin:
    """The used parts of the SDK, which has no types."""

    users: Any
    tokens: Any


class AdminDirectory:
    """`FirebaseDirectory`; the SDK is loaded at the first call."""

    def __init__(self, open_admin: Callable[[], Admin], clock: Clock) -> None:
        self._open_admin = open_admin
        self._clock = clock
        self._opening = threading.Lock()
        self._admin: Admin | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="firebase")

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def look_up(self, uid: str) -> FirebaseAccount:
        asked_at = self._clock()
        try:
            record = await self._call("look_up", lambda admin: admin.users.get_user(uid=uid))
        except _Refused as error:
            if error.code != NOT_FOUND:
                raise _unavailable() from error
            return FirebaseAccount(looked_up_at=asked_at, existing=False)
        since = record.get("validSince")
        return FirebaseAccount(
            looked_up_at=asked_at,
            existing=True,
            disabled=bool(record.get("disabled")),
            tokens_valid_after=datetime.fromtimestamp(int(since), UTC) if since else None,
        )

    async def custom_token(self, uid: str) -> str:
        try:
            token = await self._call(
                "custom_token", lambda admin: admin.tokens.create_custom_token(uid)
            )
        except _Refused as error:
            raise _unavailable() from error
        return token.decode()

    async def session_cookie(self, id_token: str, ttl: timedelta) -> str:
        try:
            return await self._call(
                "session_cookie",
                lambda admin: admin.tokens.create_session_cookie(id_token, expires_in=ttl),
            )
        except _Refused as error:
            if error.code in (INVALID, NOT_FOUND):
                raise RpcError(
                    ErrorCode.UNAUTHENTICATED, "Firebase refused the ID token."
                ) from error
            raise _unavailable() from error

    async def delete(self, uid: str) -> None:
        try:
            await self._call("delete", lambda admin: admin.users.delete_user(uid))
        except _Refused as error:
            if error.code != NOT_FOUND:
                raise _unavailable() from error

    async def _call(self, operation: str, work: Callable[[Admin], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await loop.run_in_executor(
                    self._threads, functools.partial(self._work, work)
                )
        except _Refused as error:
            if error.code != NOT_FOUND:
                log.warning("firebase.refused", operation=operation, code=error.code)
            raise
        except (TimeoutError, _Unreachable) as error:
            log.warning("firebase.unreachable", operation=operation, error=str(error) or "timeout")
            raise _unavailable() from error

    def _work(self, work: Callable[[Admin], T]) -> T:
        """Call the SDK in a thread; its errors become ours, without their texts."""
        from firebase_admin import auth, exceptions
        from google.auth.exceptions import GoogleAuthError
        from requests import RequestException

        try:
            return work(self._opened())
        except auth.UserNotFoundError:
            raise _Refused(NOT_FOUND) from None
        except exceptions.UnavailableError as error:
            raise _Unreachable(type(error).__name__) from None
        except exceptions.FirebaseError as error:
            code: Any = error.code
            raise _Refused(str(code)) from None
        except (GoogleAuthError, RequestException) as error:
            raise _Unreachable(type(error).__name__) from None

    def _opened(self) -> Admin:
        with self._opening:
            if self._admin is None:
                self._admin = self._open_admin()
            return self._admin


def open_directory(settings: FirebaseSettings) -> AdminDirectory | None:
    """The directory of the emulator or of the service account; None without either."""
    project = settings.project_id
    if host := settings.emulator_host:
        return AdminDirectory(lambda: open_emulated_admin(project, host), utc_now)
    if (account := settings.service_account()) is not None:
        return AdminDirectory(
            lambda: open_service_account_admin(project, account, settings.api_url), utc_now
        )
    return None


def open_service_account_admin(
    project_id: str, service_account: Mapping[str, Any], base_url: str
) -> Admin:
    from firebase_admin import credentials
    from google.auth.transport.requests import AuthorizedSession

    credential = credentials.Certificate(dict(service_account))
    session = AuthorizedSession(credential.get_credential(), refresh_timeout=HTTP_SECONDS)
    return _admin(project_id, credential, session, base_url)


def open_emulated_admin(project_id: str, host: str) -> Admin:
    """The SDK against the Auth emulator, which accepts the token `owner`."""
    from firebase_admin import credentials
    from requests import Session

    session = Session()
    session.headers["authorization"] = "Bearer owner"
    base_url = f"http://{host}/identitytoolkit.googleapis.com/v1"
    return _admin(project_id, credentials.ApplicationDefault(), session, base_url)


def _admin(project_id: str, credential: Any, session: Any, base_url: str) -> Admin:
    # Not `auth.Client`: it retries for ten seconds, and its URL cannot be changed.
    from firebase_admin import App
    from firebase_admin._http_client import JsonHttpClient
    from firebase_admin._token_gen import TokenGenerator
    from firebase_admin._user_mgt import UserManager

    session.trust_env = False
    http = JsonHttpClient(session=session, retries=False, timeout=HTTP_SECONDS)
    app = App("yocaso", credential, {"projectId": project_id})
    return Admin(
        users=UserManager(http, project_id, url_override=base_url),
        tokens=TokenGenerator(app, http, url_override=base_url),
    )


def _unavailable() -> RpcError:
    return RpcError(ErrorCode.UNAVAILABLE, "Firebase does not answer; try again.")
