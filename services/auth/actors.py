"""The user who comes from Firebase: load, decide, save. Whoever calls has asked Firebase."""

from datetime import timedelta
from typing import Final

from typing_extensions import override

from services.auth.domain.firebase import FirebaseIdentity
from services.auth.domain.firebase_users import (
    AdmitFirebaseUserCommand,
    FirebaseAccount,
    FirebaseAdmission,
    FirebaseLinkResponse,
    FirebaseVerdict,
)
from services.kit.clock import Clock
from services.kit.contract import Empty
from services.kit.dapr.domain_actor import ActorContext, ActorInterface, DomainActor

NOTHING: Final = FirebaseIdentity()


class FirebaseBridgeActorInterface(ActorInterface):
    """One user who comes from Firebase; the id is ours. It never calls Firebase: whoever calls the actor does."""

    async def admit(self, command: AdmitFirebaseUserCommand) -> FirebaseAdmission:
        """Decide by what is known, and link the user where the sign-in is VALID; repeatable."""
        ...

    async def record(self, account: FirebaseAccount) -> Empty:
        """Keep what Firebase said; an older word changes nothing."""
        ...

    async def read_link(self) -> FirebaseLinkResponse:
        """Read the link."""
        ...

    async def unlink(self) -> Empty:
        """Forget the person: the link and all that came with it; repeatable."""
        ...


class FirebaseBridgeActor(DomainActor[FirebaseIdentity], FirebaseBridgeActorInterface):
    """State: the head alone."""

    def __init__(self, context: ActorContext, clock: Clock, believed: timedelta | None) -> None:
        super().__init__(context)
        self._clock = clock
        self._believed = believed

    @override
    async def admit(self, command: AdmitFirebaseUserCommand) -> FirebaseAdmission:
        """Decide by what is known, and link the user where the sign-in counts."""
        identity = await self._load()
        verdict = identity.verdict(command.authenticated_at, self._clock(), self._believed)
        if verdict is FirebaseVerdict.VALID:
            await self._save(identity, identity.linked(command))
        return FirebaseAdmission(verdict=verdict)

    @override
    async def record(self, account: FirebaseAccount) -> Empty:
        """Keep what Firebase said."""
        identity = await self._load()
        await self._save(identity, identity.told(account))
        return Empty()

    @override
    async def read_link(self) -> FirebaseLinkResponse:
        """Read the link."""
        return FirebaseLinkResponse(link=(await self._load()).link)

    @override
    async def unlink(self) -> Empty:
        """Forget the person."""
        await self.state.erase()
        return Empty()

    async def _load(self) -> FirebaseIdentity:
        return await self.state.load() or NOTHING

    async def _save(self, before: FirebaseIdentity, after: FirebaseIdentity) -> None:
        if after != before:
            await self.state.commit(after)
