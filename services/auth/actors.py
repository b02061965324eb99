"""`FirebaseBridgeActor`: load, decide, save."""

from datetime import timedelta
from typing import Final

from typing_extensions import override

from services.auth.domain.firebase import (
    AdmitFirebaseUserCommand,
    FirebaseAccount,
    FirebaseAdmission,
    FirebaseIdentity,
    FirebaseLinkResponse,
    FirebaseVerdict,
)
from services.kit.clock import Clock
from services.kit.contract import Empty
from services.kit.dapr.domain_actor import ActorContext, ActorInterface, DomainActor

NOTHING: Final = FirebaseIdentity()


class FirebaseBridgeActorInterface(ActorInterface):
    """One user who signs in by Firebase; the id is our user id. Its callers call Firebase."""

    async def admit(self, command: AdmitFirebaseUserCommand) -> FirebaseAdmission:
        """Decide on a sign-in by the last look-up, and link the user if it is VALID; repeatable."""
        ...

    async def record(self, account: FirebaseAccount) -> Empty:
        """Store a look-up, unless a later one is stored."""
        ...

    async def read_link(self) -> FirebaseLinkResponse:
        """The Firebase user, if linked."""
        ...

    async def unlink(self) -> Empty:
        """Erase the state; repeatable."""
        ...


class FirebaseBridgeActor(DomainActor[FirebaseIdentity], FirebaseBridgeActorInterface):
    """State: one `FirebaseIdentity`. `max_age` bounds the age of a look-up; None without a directory."""

    def __init__(self, context: ActorContext, clock: Clock, max_age: timedelta | None) -> None:
        super().__init__(context)
        self._clock = clock
        self._max_age = max_age

    @override
    async def admit(self, command: AdmitFirebaseUserCommand) -> FirebaseAdmission:
        identity = await self._load()
        verdict = identity.verdict(command.authenticated_at, self._clock(), self._max_age)
        if verdict is FirebaseVerdict.VALID:
            await self._save(identity, identity.linked(command))
        return FirebaseAdmission(verdict=verdict)

    @override
    async def record(self, account: FirebaseAccount) -> Empty:
        identity = await self._load()
        await self._save(identity, identity.updated(account))
        return Empty()

    @override
    async def read_link(self) -> FirebaseLinkResponse:
        return FirebaseLinkResponse(link=(await self._load()).link)

    @override
    async def unlink(self) -> Empty:
        await self.state.erase()
        return Empty()

    async def _load(self) -> FirebaseIdentity:
        return await self.state.load() or NOTHING

    async def _save(self, before: FirebaseIdentity, after: FirebaseIdentity) -> None:
        if after != before:
            await self.state.commit(after)
