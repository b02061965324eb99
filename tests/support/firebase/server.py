"""A fake of Google: certificates, OAuth tokens and the Identity Toolkit."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aiohttp import web
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from tests.support.firebase.signing import Signer

PROJECT: Final = "yocaso-tests"
EMAIL: Final = f"firebase-adminsdk@{PROJECT}.iam.gserviceaccount.com"
ACCESS_TOKEN: Final = "ya29.of-the-service-account"
GOOGLE_OAUTH: Final = (
    "https://oauth2.googleapis.com/token"  # the audience that the SDK sets for any endpoint
)
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class FirebaseUser:
    """A user of the project."""

    uid: str
    email: str = "alice@example.com"
    email_verified: bool = True
    disabled: bool = False
    valid_since: int = 0

    def wire(self) -> dict[str, Any]:
        """As `accounts:lookup` shows it."""
        return {
            "localId": self.uid,
            "email": self.email,
            "emailVerified": self.email_verified,
            "validSince": str(self.valid_since),
            "disabled": self.disabled,
            "createdAt": "1700000000000",
            "lastLoginAt": "1700000000000",
            "providerUserInfo": [],
        }


@dataclass
class FirebaseServer:
    """`calls` counts by route, `asked_about` look-ups by user; routes in `down` answer 503; a cleared `gate` holds look-ups."""

    port: int
    users: dict[str, FirebaseUser] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    asked_about: Counter[str] = field(default_factory=Counter)
    down: set[str] = field(default_factory=set)
    cache_control: str = "public, max-age=21600, must-revalidate, no-transform"
    cookie_error: str | None = None
    certificates_body: bytes | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.signers = [Signer()]
        self.cookie_signer = Signer()
        self.account = Signer()
        self.gate.set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        project = f"/v1/projects/{PROJECT}"
        routes: dict[str, tuple[str, str, Handler]] = {
            "certificates": ("GET", "/certs", self._certificates),
            "cookie_certificates": ("GET", "/cookie-certs", self._cookie_certificates),
            "token": ("POST", "/token", self._token),
            "lookup": ("POST", f"{project}/accounts:lookup", self._lookup),
            "update": ("POST", f"{project}/accounts:update", self._update),
            "delete": ("POST", f"{project}/accounts:delete", self._delete),
            "cookie": ("POST", f"{project}:createSessionCookie", self._cookie),
        }
        for name, (method, path, handler) in routes.items():
            app.router.add_route(method, path, self._counted(name, handler))
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self.gate.set()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def service_account(self) -> dict[str, str]:
        """A service account file as Google's console makes it."""
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": self.account.kid,
            "private_key": self.account.private_pem(),
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }

    def environment(self, *, credentials: bool = True) -> dict[str, str]:
        """Environment variables that connect auth to this server."""
        return {
            "AUTH_FIREBASE_PROJECT_ID": PROJECT,
            "AUTH_FIREBASE_CERTS_URL": f"{self.url}/certs",
            "AUTH_FIREBASE_COOKIE_CERTS_URL": f"{self.url}/cookie-certs",
            "AUTH_FIREBASE_API_URL": f"{self.url}/v1",
            **(
                {"AUTH_FIREBASE_CREDENTIALS": json.dumps(self.service_account())}
                if credentials
                else {}
            ),
        }

    def claims(self, uid: str = "alice", **changed: Any) -> dict[str, Any]:
        """Claims of an ID token of a user who has just signed in; None removes one."""
        now = int(time.time())
        user = self.users.get(uid) or FirebaseUser(uid)
        claims = {
            "iss": f"https://securetoken.google.com/{PROJECT}",
            "aud": PROJECT,
            "sub": uid,
            "user_id": uid,
            "iat": now,
            "exp": now + 3600,
            "auth_time": now,
            "email": user.email,
            "email_verified": user.email_verified,
            "firebase": {"identities": {"email": [user.email]}, "sign_in_provider": "password"},
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def id_token(self, uid: str = "alice", **changed: Any) -> str:
        """An ID token signed with the newest key."""
        return self.signers[-1].sign(self.claims(uid, **changed))

    def add(self, uid: str = "alice", **fields: Any) -> FirebaseUser:
        """Add a user to the project."""
        self.users[uid] = FirebaseUser(uid, **fields)
        return self.users[uid]

    def reset(self) -> None:
        """Remove users, counts and failures."""
        self.users.clear()
        self.calls.clear()
        self.asked_about.clear()
        self.down = set()
        self.cookie_error = self.certificates_body = None
        self.gate.set()

    def rotate(self, *, overlap: bool = True) -> Signer:
        """Add a signing key; without `overlap` remove the old ones."""
        self.signers = [*(self.signers if overlap else []), Signer()]
        return self.signers[-1]

    def _counted(self, name: str, handler: Handler) -> Handler:
        async def counted(request: web.Request) -> web.Response:
            self.calls[name] += 1
            if name == "lookup":
                await self.gate.wait()
            if name in self.down:
                return web.json_response({"error": {"code": 503, "message": "BACKEND"}}, status=503)
            return await handler(request)

        return counted

    async def _certificates(self, _: web.Request) -> web.Response:
        if self.certificates_body is not None:
            return web.Response(body=self.certificates_body)
        return self._set(self.signers)

    async def _cookie_certificates(self, _: web.Request) -> web.Response:
        return self._set([self.cookie_signer])

    def _set(self, signers: list[Signer]) -> web.Response:
        body = {signer.kid: signer.certificate for signer in signers}
        return web.json_response(body, headers={"cache-control": self.cache_control})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        key = RSAKey.import_key(self.account.public_pem())
        try:
            claims = jwt.decode(str(form["assertion"]), key, algorithms=["RS256"]).claims
        except (JoseError, ValueError, KeyError):
            claims = {}
        good = claims.get("iss") == EMAIL and claims.get("aud") == GOOGLE_OAUTH
        if form.get("grant_type") != JWT_BEARER or not good:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response(
            {"access_token": ACCESS_TOKEN, "expires_in": 3599, "token_type": "Bearer"}
        )

    async def _lookup(self, request: web.Request) -> web.Response:
        if refused := _unauthorized(request):
            return refused
        wanted = (await request.json())["localId"]
        self.asked_about.update(wanted)
        users = [self.users[uid].wire() for uid in wanted if uid in self.users]
        found: dict[str, Any] = {"users": users} if users else {}
        return web.json_response({"kind": "identitytoolkit#GetAccountInfoResponse", **found})

    async def _update(self, request: web.Request) -> web.Response:
        if refused := _unauthorized(request):
            return refused
        change = await request.json()
        user = self.users.get(change["localId"])
        if user is None:
            return _error("USER_NOT_FOUND")
        user.valid_since = int(change.get("validSince", user.valid_since))
        user.disabled = change.get("disableUser", user.disabled)
        kind = "identitytoolkit#SetAccountInfoResponse"
        return web.json_response({"kind": kind, "localId": user.uid})

    async def _delete(self, request: web.Request) -> web.Response:
        if refused := _unauthorized(request):
            return refused
        if self.users.pop((await request.json())["localId"], None) is None:
            return _error("USER_NOT_FOUND")
        return web.json_response({"kind": "identitytoolkit#DeleteAccountResponse"})

    async def _cookie(self, request: web.Request) -> web.Response:
        if refused := _unauthorized(request):
            return refused
        if self.cookie_error:
            return _error(self.cookie_error)
        body = await request.json()
        claims = self._own(body["idToken"])
        if claims is None:
            return _error("INVALID_ID_TOKEN")
        now = int(time.time())
        claims |= {"iss": f"https://session.firebase.google.com/{PROJECT}", "iat": now}
        claims["exp"] = now + int(body["validDuration"])
        return web.json_response({"sessionCookie": self.cookie_signer.sign(claims)})

    def _own(self, token: str) -> dict[str, Any] | None:
        for signer in self.signers:
            try:
                key = RSAKey.import_key(signer.public_pem())
                return dict(jwt.decode(token, key, algorithms=["RS256"]).claims)
            except JoseError:
                continue
        return None


@contextmanager
def running_firebase(port: int) -> Iterator[FirebaseServer]:
    """A server on a thread and event loop of its own, which answers while a test blocks its loop."""
    server, loop = FirebaseServer(port), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def finish(work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    try:
        finish(server.__aenter__())
        yield server
    finally:
        finish(server.__aexit__())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def _unauthorized(request: web.Request) -> web.Response | None:
    if request.headers.get("authorization") == f"Bearer {ACCESS_TOKEN}":
        return None
    return _error("CREDENTIAL_MISMATCH", 401)


def _error(message: str, status: int = 400) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message}}, status=status)
