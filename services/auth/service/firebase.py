"""Sign-in by Firebase. The service asks Firebase; `FirebaseBridgeActor` keeps the answers and decides."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from services.auth.actors import FirebaseBridgeActorInterface
from services.auth.domain.firebase import (
    AdmitFirebaseUserCommand,
    FirebaseAccount,
    FirebaseLink,
    FirebaseProject,
    FirebaseTokenKind,
    FirebaseUser,
    FirebaseVerdict,
    is_fresh,
    refused,
)
from services.auth.ports.firebase import FirebaseDirectory, SignatureCheck
from services.auth.ports.tokens import Revocations
from services.contracts.auth.tokens import CreateSessionCookieRequest, CustomToken, SessionCookie
from services.kit.access.identity import CallerIdentity
from services.kit.clock import Clock
from services.kit.dapr.actors import Actors
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.http.overload import mark_waiting
from services.kit.single_flight import SingleFlight

REFUSALS: Final = {
    FirebaseVerdict.REVOKED: "The Firebase sign-in was revoked; sign in again.",
    FirebaseVerdict.DISABLED: "The Firebase user is disabled.",
    FirebaseVerdict.DELETED: "The Firebase user was deleted.",
}


@dataclass(frozen=True, slots=True)
class FirebaseTokens:
    """Verifies the tokens of one Firebase project."""

    project: FirebaseProject
    signatures: SignatureCheck

    async def user_of(self, kind: FirebaseTokenKind, token: str, at: datetime) -> FirebaseUser:
        return self.project.user_of(kind, await self.signatures.claims(kind, token), at)


@dataclass(frozen=True, slots=True)
class FirebaseService:
    """`SignIn` and `UserData`. Without `tokens` sign-in is off: FAILED_PRECONDITION.

    Without `directory` (no service account) revoked sign-ins pass, and cookies and custom tokens are
    FAILED_PRECONDITION.
    """

    tokens: FirebaseTokens | None
    directory: FirebaseDirectory | None
    revocations: Revocations
    actors: Actors
    clock: Clock
    look_ups: SingleFlight[str, None] = field(default_factory=SingleFlight[str, None])

    async def sign_in(self, kind: FirebaseTokenKind, token: str) -> FirebaseUser:
        tokens = self._require_tokens()
        user = await tokens.user_of(kind, token, self.clock())
        await self._admit(tokens.project, user)
        return user

    async def recheck(self, user_id: str, authenticated_at: datetime) -> None:
        """Refuse users whom Firebase has revoked; others, and all while sign-in is off, pass."""
        link = await self._link(user_id) if self.tokens else None
        if self.tokens is None or link is None:
            return
        project = self.tokens.project
        if link.project_id != project.project_id:
            raise RpcError(ErrorCode.UNAUTHENTICATED, "The Firebase project is no longer accepted.")
        await self._admit(project, FirebaseUser(user_id, link.uid, link.email, authenticated_at))

    async def session_cookie(self, request: CreateSessionCookieRequest) -> SessionCookie:
        """Create a session cookie for a fresh sign-in."""
        self._require_tokens()
        directory = self._require_directory()
        kind = FirebaseTokenKind.ID_TOKEN
        user = await self.sign_in(kind, request.id_token)
        if not is_fresh(user, self.clock()):
            raise refused(kind, "is of an old sign-in; sign in again")
        mark_waiting()
        ttl = timedelta(seconds=request.ttl_seconds)
        cookie = await directory.session_cookie(request.id_token, ttl)
        return SessionCookie(session_cookie=cookie, expires_in=request.ttl_seconds)

    async def custom_token(self, caller: CallerIdentity) -> CustomToken:
        """Create a custom token for a caller who signed in by Firebase; it gives all of the user's rights."""
        project, directory = self._require_tokens().project, self._require_directory()
        if caller.key_id is not None:
            raise RpcError(ErrorCode.PERMISSION_DENIED, "An API key cannot sign in for its owner.")
        link = await self._link(caller.user_id)
        if link is None or link.project_id != project.project_id:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "The caller is no Firebase user.")
        user = FirebaseUser(caller.user_id, link.uid, link.email, link.last_sign_in)
        await self._admit(project, user)
        mark_waiting()
        return CustomToken(custom_token=await directory.custom_token(link.uid))

    async def count(self, user_id: str) -> dict[str, int]:
        return {"firebaseLinks": int(await self._link(user_id) is not None)}

    async def erase(self, user_id: str) -> None:
        """Delete the Firebase user, if there is a directory, and the link."""
        link = await self._link(user_id)
        if link is None:
            return
        bridge = self._bridge(user_id)
        if self.directory is not None:
            await self.directory.delete(link.uid)
            # A sign-in before `unlink` must not be admitted by a cached look-up.
            await bridge.record(FirebaseAccount(looked_up_at=self.clock(), existing=False))
        await self.revocations.revoke("sub", user_id)
        await bridge.unlink()

    async def _admit(self, project: FirebaseProject, user: FirebaseUser) -> None:
        command = AdmitFirebaseUserCommand(
            project_id=project.project_id,
            uid=user.uid,
            email=user.email,
            authenticated_at=user.authenticated_at,
        )
        bridge = self._bridge(user.user_id)
        verdict = (await bridge.admit(command)).verdict
        if verdict is FirebaseVerdict.UNKNOWN:
            mark_waiting()
            await self.look_ups.run(user.user_id, lambda: self._look_up(command, user))
            verdict = (await bridge.admit(command)).verdict
        if verdict is FirebaseVerdict.UNKNOWN:
            raise RpcError(ErrorCode.UNAVAILABLE, "Firebase does not answer; try again.")
        if verdict in REFUSALS:
            raise RpcError(ErrorCode.UNAUTHENTICATED, REFUSALS[verdict])

    async def _look_up(self, command: AdmitFirebaseUserCommand, user: FirebaseUser) -> None:
        """Ask Firebase, and end the sessions of a disabled or deleted user before the actor knows of it."""
        bridge = self._bridge(user.user_id)
        if (await bridge.admit(command)).verdict is not FirebaseVerdict.UNKNOWN:
            return  # a concurrent call has asked
        account = await self._require_directory().look_up(user.uid)
        await failpoint("firebase.after_lookup")
        if account.disabled or not account.existing:
            await self.revocations.revoke("sub", user.user_id)
        await bridge.record(account)

    async def _link(self, user_id: str) -> FirebaseLink | None:
        return (await self._bridge(user_id).read_link()).link

    def _bridge(self, user_id: str) -> FirebaseBridgeActorInterface:
        return self.actors.get(FirebaseBridgeActorInterface, user_id)

    def _require_tokens(self) -> FirebaseTokens:
        if self.tokens is None:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "Sign-in by Firebase is not configured.")
        return self.tokens

    def _require_directory(self) -> FirebaseDirectory:
        if self.directory is None:
            raise RpcError(
                ErrorCode.FAILED_PRECONDITION, "Firebase credentials are not configured."
            )
        return self.directory
