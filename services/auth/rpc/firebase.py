"""Sign-in by Firebase: asks Firebase, lets the user's actor decide, and ends what no longer counts."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import Depends, Request

from services.auth.actors import FirebaseBridgeActorInterface
from services.auth.domain.firebase import (
    FirebaseProject,
    FirebaseTokenKind,
    FirebaseUser,
    is_fresh,
    refused,
)
from services.auth.domain.firebase_users import (
    AdmitFirebaseUserCommand,
    FirebaseAccount,
    FirebaseLink,
    FirebaseVerdict,
)
from services.auth.ports.firebase import FirebaseDirectory, SignatureCheck
from services.auth.ports.sessions import Revocations
from services.contracts.auth.tokens import CreateSessionCookieRequest, CustomToken, SessionCookie
from services.kit.access.identity import CallerIdentity
from services.kit.clock import Clock
from services.kit.dapr.actors import Actors
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.http.dependencies import taken
from services.kit.http.overload import now_waiting
from services.kit.single_flight import SingleFlight

REFUSALS: Final = {
    FirebaseVerdict.REVOKED: "The Firebase sign-in was revoked; sign in again.",
    FirebaseVerdict.DISABLED: "The Firebase user is disabled.",
    FirebaseVerdict.DELETED: "The Firebase user was deleted.",
}


@dataclass(frozen=True, slots=True)
class Firebase:
    """The bridge to one Firebase project. Without a directory nothing is asked of Firebase but its keys."""

    project: FirebaseProject
    signatures: SignatureCheck
    directory: FirebaseDirectory | None
    revocations: Revocations
    actors: Actors
    clock: Clock
    flights: SingleFlight[str, None] = field(default_factory=SingleFlight[str, None])

    async def sign_in(self, kind: FirebaseTokenKind, token: str) -> FirebaseUser:
        """Who a token speaks for, if that person may come in."""
        claims = await self.signatures.claims(kind, token)
        user = self.project.user_of(kind, claims, self.clock())
        await self._admit(user)
        return user

    async def recheck(self, user_id: str, authenticated_at: datetime) -> None:
        """Refuse a session of somebody whom Firebase no longer lets in; anybody else's passes."""
        link = await link_of(self.actors, user_id)
        if link is None:
            return
        if link.project_id != self.project.project_id:
            raise RpcError(ErrorCode.UNAUTHENTICATED, "The Firebase project is served no more.")
        await self._admit(FirebaseUser(user_id, link.uid, link.email, authenticated_at))

    async def session_cookie(self, request: CreateSessionCookieRequest) -> SessionCookie:
        """A session cookie for somebody who has just signed in."""
        directory = self._directory()
        kind = FirebaseTokenKind.ID_TOKEN
        user = await self.sign_in(kind, request.id_token)
        if not is_fresh(user, self.clock()):
            raise refused(kind, "is of an old sign-in; sign in again")
        ttl = timedelta(seconds=request.ttl_seconds)
        now_waiting()
        cookie = await directory.session_cookie(request.id_token, ttl)
        return SessionCookie(session_cookie=cookie, expires_in=request.ttl_seconds)

    async def custom_token(self, caller: CallerIdentity) -> CustomToken:
        """A custom token for a caller who came from Firebase; whoever signs in by it may do all that the user may."""
        directory = self._directory()
        if caller.key_id is not None:
            raise RpcError(ErrorCode.PERMISSION_DENIED, "An API key cannot sign in for its owner.")
        link = await link_of(self.actors, caller.user_id)
        if link is None or link.project_id != self.project.project_id:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "The caller is no Firebase user.")
        await self._admit(
            FirebaseUser(caller.user_id, link.uid, link.email, authenticated_at=link.last_sign_in)
        )
        now_waiting()
        return CustomToken(custom_token=await directory.custom_token(link.uid))

    async def _admit(self, user: FirebaseUser) -> None:
        verdict = await self._judge(user)
        if verdict is FirebaseVerdict.UNKNOWN:
            now_waiting()  # from here on it waits for Firebase
            await self.flights.run(user.user_id, lambda: self._ask(user))
            verdict = await self._judge(user)
        if verdict is FirebaseVerdict.UNKNOWN:
            raise RpcError(ErrorCode.UNAVAILABLE, "Firebase cannot be asked just now; try again.")
        if verdict in REFUSALS:
            raise RpcError(ErrorCode.UNAUTHENTICATED, REFUSALS[verdict])

    async def _judge(self, user: FirebaseUser) -> FirebaseVerdict:
        command = AdmitFirebaseUserCommand(
            project_id=self.project.project_id,
            uid=user.uid,
            email=user.email,
            authenticated_at=user.authenticated_at,
        )
        return (await _bridge(self.actors, user.user_id).admit(command)).verdict

    async def _ask(self, user: FirebaseUser) -> None:
        """Ask Firebase, end our sessions of a user who is out, and only then let the actor know."""
        if await self._judge(user) is not FirebaseVerdict.UNKNOWN:
            return  # somebody has asked meanwhile
        account = await self._directory().look_up(user.uid)
        await failpoint("firebase.after_lookup")
        if account.disabled or not account.existing:
            await self.revocations.revoke("sub", user.user_id)
        await _bridge(self.actors, user.user_id).record(account)

    def _directory(self) -> FirebaseDirectory:
        if self.directory is None:
            raise RpcError(
                ErrorCode.FAILED_PRECONDITION, "Firebase credentials are not configured here."
            )
        return self.directory


@dataclass(frozen=True, slots=True)
class FirebaseLinks:
    """What is kept of users who came from Firebase, also while sign-in by it is off."""

    directory: FirebaseDirectory | None
    revocations: Revocations
    actors: Actors
    clock: Clock

    async def count(self, user_id: str) -> dict[str, int]:
        """Whether the user is linked."""
        return {"firebaseLinks": int(await link_of(self.actors, user_id) is not None)}

    async def erase(self, user_id: str) -> None:
        """Delete the Firebase user, as far as we may, and forget the link; repeatable."""
        link = await link_of(self.actors, user_id)
        if link is None:
            return
        bridge = _bridge(self.actors, user_id)
        if self.directory is not None:
            await self.directory.delete(link.uid)
            # A sign-in that comes before the link is gone must not be let in by an older word.
            await bridge.record(FirebaseAccount(looked_up_at=self.clock(), existing=False))
        await self.revocations.revoke("sub", user_id)
        await bridge.unlink()


async def link_of(actors: Actors, user_id: str) -> FirebaseLink | None:
    """The Firebase user that one of ours is, if any."""
    return (await _bridge(actors, user_id).read_link()).link


def _bridge(actors: Actors, user_id: str) -> FirebaseBridgeActorInterface:
    return actors.get(FirebaseBridgeActorInterface, user_id)


def require(firebase: Firebase | None) -> Firebase:
    """The bridge.

    Raises:
        RpcError: FAILED_PRECONDITION where it is off.
    """
    if firebase is None:
        raise RpcError(ErrorCode.FAILED_PRECONDITION, "Sign-in by Firebase is not configured here.")
    return firebase


@dataclass(frozen=True, slots=True)
class FirebaseSwitch:
    """The bridge; None where it is off."""

    bridge: Firebase | None


async def _firebase(request: Request) -> Firebase | None:
    return taken(request.app, FirebaseSwitch).bridge


WithFirebase = Annotated[Firebase | None, Depends(_firebase)]
